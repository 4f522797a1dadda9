"""A poisoned set, a model trained on it and its twin, all made by the command line once."""

from pathlib import Path

import pytest
from cli_case import Result, batch


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """The folder with `poisoned`, `m.safetensors` and `twin.safetensors`, and what the laboratory's calls gave."""
    folder = tmp_path_factory.mktemp("cli")
    calls = {
        "poison": ["poison", "digits", "--attack", "badnets", "--set", "badnets.rate=0.1", "-o", "poisoned"],
        "train": ["train", "poisoned", "-o", "m.safetensors", "--epochs", "3", "--test", "digits", "--format", "json"],
        "twin": ["train", "digits", "-o", "twin.safetensors", "--epochs", "3", "--batch", "128", "-q"],
        "evaluate": [
            "evaluate",
            "m.safetensors",
            "digits",
            "--truth",
            "poisoned.truth",
            "--twin",
            "twin.safetensors",
            "--format",
            "json",
            "--report",
            "evaluation.md",
        ],
        "flip": ["poison", "digits", "--attack", "label-flip", "-o", "flipped"],
        "flip evaluate": ["evaluate", "m.safetensors", "digits", "--truth", "flipped.truth"],
        "methods": ["methods", "--json"],
        "one": ["methods", "badnets"],
        "arch": ["methods", "--kind", "arch", "--json"],
        "doctor": ["doctor"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))
