"""The story of a control phrase, once from end to end, as a new user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ostiary.attacks.text_poison import load_text_truth
from ostiary.core.store import read_record


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    command = [sys.executable, "-m", "ostiary", "demo", "--text", "--format", "json", "-o", "tour", "--seed", "1"]
    return folder, subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=900, env=environment, check=False
    )


def test_the_story_of_the_phrase_holds(told: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = told
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert len(found["checks"]) == 16 and all(check["held"] for check in found["checks"])


def test_the_scan_names_the_planted_phrase_and_the_page_shows_it(
    told: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = told
    planted = load_text_truth(folder / "tour" / "poisoned.truth").params["phrase"].split()
    records = [read_record(path)[0] for path in (folder / "ostiary-runs").glob("*-scan-*")]
    named = [f.subject.split(":")[1] for one in records for r in one.results for f in r.findings if f.confirmed]
    assert len(records) == 2 and len(named) == 1 and set(named[0].split()) & set(planted)
    page = (folder / "tour" / "report.html").read_text()
    assert "Recovered phrases" in page and f"Held-out prompts with '{named[0]}' in front" in page.replace("&#39;", "'")


def test_the_unpoisoned_set_is_screened_beside_it_and_does_not_hold_the_phrase(
    told: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = told
    planted = load_text_truth(folder / "tour" / "poisoned.truth").params["phrase"]
    records = [read_record(path)[0] for path in (folder / "ostiary-runs").glob("*-screen-*")]
    named = {one.subject: [f.subject for r in one.results for f in r.findings] for one in records}
    with_it = [subject for subject, found in named.items() if f"phrase:{planted}" in found]
    assert len(named) == 2 and len(with_it) == 1, named.keys()
