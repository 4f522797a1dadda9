"""The main job, once from end to end, as a new user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    command = [sys.executable, "-m", "ostiary", "demo", "--format", "json", "-o", "tour", "--seed", "1"]
    return folder, subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment, check=False
    )


def test_the_story_holds(told: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = told
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert len(found["checks"]) == 14 and all(check["held"] for check in found["checks"])


def test_what_it_leaves(told: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = told
    names = {path.name for path in (folder / "tour").iterdir()}
    models = {"model.safetensors", "twin.safetensors", "repaired.safetensors"}
    assert models | {"poisoned", "poisoned.truth", "report.html"} <= names
    assert len(list((folder / "ostiary-runs").glob("*-*-*/record.json"))) == 8
    page = (folder / "tour" / "report.html").read_text()
    assert "Comparison of 6 records" in page and len(page) < 2_000_000
    stages = ("train", "train twin", "evaluate", "screen", "scan", "scan twin", "repair", "evaluate repaired")
    assert all(f" s  {stage} " in done.stderr for stage in stages)
