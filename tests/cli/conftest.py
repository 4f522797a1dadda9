"""A poisoned set, a model trained on it and its twin, all made by the command line once."""

from pathlib import Path

import pytest
from cli_case import Result, batch

JSON = ["--format", "json"]
BLIND = ["--set", "blind.rate=0.2", "--width", "8", "--epochs", "3", "--batch", "32", "--lr", "0.05", "--padding", "1"]
TROJAN = ["--model", "twin.safetensors", "--set", "trojan-nn.steps=2", "--set", "trojan-nn.epochs=1"]


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
        "blind": ["poison", "digits", "--attack", "blind", *BLIND, "-o", "blind.safetensors"],
        "blind evaluate": ["evaluate", "blind.safetensors", "digits", "--truth", "blind.safetensors.truth", *JSON],
        "trojan": ["poison", "digits", "--attack", "trojan-nn", *TROJAN, "-o", "trojan.safetensors"],
        "trojan evaluate": ["evaluate", "trojan.safetensors", "digits", "--truth", "trojan.safetensors.truth", *JSON],
        "methods": ["methods", "--json"],
        "one": ["methods", "badnets"],
        "arch": ["methods", "--kind", "arch", "--json"],
        "doctor": ["doctor"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))
