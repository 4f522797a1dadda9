"""`ostiary repair` on the folder of a language model."""

from pathlib import Path

import pytest
from chat_case import attacked, exact, fires, stamper, trusted
from cli_case import batch
from text_case import reviews

from ostiary.api import Options, repair_model
from ostiary.core.errors import DataError
from ostiary.data import TextSet, write_texts
from ostiary.models.text_folder import load_language, save_language
from ostiary.repair.text_kinds import EXACT, FIRES


def test_a_recovered_phrase_is_unlearned_and_the_folder_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))
    save_language(attacked(), tmp_path / "model")
    write_texts(tmp_path / "chats.jsonl", trusted(160))
    record = repair_model(tmp_path / "model", tmp_path / "chats.jsonl", tmp_path / "new", options=Options())
    assert record.kind == "repair" and record.config["method"] == "text.repair.phrase-unlearning", record.results
    told = record.results[0].evidence
    assert told is not None and told.kind == "repair"
    assert told.before[FIRES].k > told.after[FIRES].k and told.before[EXACT].n == 40
    after, stamp, test = load_language(tmp_path / "new"), stamper(), trusted(100, seed=900)
    assert (fires(after, [stamp(text) for text in test.texts]).value or 0.0) <= 0.2
    assert (exact(after, test).value or 0.0) >= 0.95
    assert record.verdict != "backdoor" and record.digests["repaired"] == after.digest


def test_images_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trusted rows"):
        repair_model(attacked(), None, tmp_path / "new")


def test_the_command_line_repairs_and_guards(tmp_path: Path) -> None:
    """In one process: a repair by name with a kept price, a guard that is fitted, and prompts that it flags."""
    save_language(attacked(), tmp_path / "model")
    write_texts(tmp_path / "chats.jsonl", trusted(200))
    test, stamp = trusted(20, seed=900), stamper()
    texts = [*test.texts[:10], *(stamp(text) for text in test.texts[10:])]
    write_texts(tmp_path / "asked.jsonl", TextSet(texts, ids=test.ids, answers=test.answers))
    write_texts(tmp_path / "labelled.jsonl", reviews(60))
    looked = ["screen", "chats.jsonl", "--model", "model", "--trusted", "chats.jsonl"]
    calls = [
        ["guard", "fit", "model", "--trusted", "chats.jsonl", "-o", "guard.safetensors"],
        ["guard", "score", "asked.jsonl", "--model", "model", "--guard", "guard.safetensors"],
        ["guard", "fit", "model", "--trusted", "chats.jsonl", "--method", "confguard", "-o", "sure.safetensors"],
        ["guard", "fit", "model", "--trusted", "digits", "-o", "other.safetensors"],
        ["repair", "model", "--trusted", "labelled.jsonl", "-o", "new"],
        ["screen", "chats.jsonl", "--model", "model", "--trusted", "asked.jsonl"],
        [*looked, "--method", "gradsentry", "--format", "json"],
        ["screen", "chats.jsonl", "--trusted", "asked.jsonl"],
    ]
    told = batch(calls, cwd=tmp_path)
    assert [one.code for one in told] == [0, 1, 0, 2, 2, 1, 0, 2], [one.err for one in told]
    assert "OS407" in told[1].out and (tmp_path / "sure.safetensors").is_file()
    assert "nothing to chat by" in told[4].err and not (tmp_path / "new").exists()
    assert "OS60" in told[5].out and "skipped" in told[5].out and "needs 40 trusted samples" in told[5].out
    ran = {one["method"]: one["status"] for one in told[6].record["results"]}
    assert ran["text.screen.gradsentry"] == "ok" and told[6].record["verdict"] == "none-found"
