"""`ostiary train` on texts with labels and `ostiary scan` of what comes of it: good input and bad."""

from pathlib import Path

from classifier_case import attacked, trusted
from cli_case import batch
from text_case import chat, reviews

from ostiary.data import write_texts
from ostiary.models.text_folder import load_text_classifier, save_text_classifier


def test_labels_give_a_folder_that_can_be_read(tmp_path: Path) -> None:
    write_texts(tmp_path / "reviews.jsonl", reviews(300))
    write_texts(tmp_path / "test.jsonl", reviews(100, seed=9))
    calls = [
        ["train", "reviews.jsonl", "--test", "test.jsonl", "-o", "model", "--format", "json"],
        ["train", "reviews.jsonl", "-o", "model"],
        ["train", "reviews.jsonl", "-o", "other", "--flip"],
    ]
    good, again, flip = batch(calls, cwd=tmp_path)
    assert good.code == 0, good.err
    accuracy = good.record["results"][0]["evidence"]["rates"]["accuracy"]
    assert accuracy["n"] == 100 and accuracy["value"] >= 0.8
    model = load_text_classifier(tmp_path / "model")
    assert model.digest == good.record["digests"]["model"]
    assert again.code == 2 and "exists already" in again.err
    assert flip.code == 2 and "--flip is not for them" in flip.err
    assert not (tmp_path / "other").exists()


def test_an_attacked_classifier_is_scanned_and_its_trigger_named(tmp_path: Path) -> None:
    save_text_classifier(attacked(), tmp_path / "model")
    write_texts(tmp_path / "trusted.jsonl", trusted())
    write_texts(tmp_path / "chat.jsonl", chat(50))
    calls = [
        ["scan", "model", "--trusted", "trusted.jsonl", "--set", "dbs.epochs=20", "--format", "json"],
        ["scan", "model", "--trusted", "chat.jsonl"],
        ["scan", "model"],
    ]
    found, answers, nothing = batch(calls, cwd=tmp_path)
    assert found.code == 1, found.err
    record = found.record
    assert record["verdict"] == "suspect" and record["results"][0]["findings"][0]["code"] == "OS212"
    assert "cf" in record["results"][0]["findings"][0]["subject"]
    assert record["config"]["trusted_accuracy"]["value"] >= 0.8
    assert answers.code == 2 and "nothing to classify by" in answers.err
    assert nothing.code != 0 and "needs 20 trusted samples" in nothing.out
