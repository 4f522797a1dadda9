"""`ostiary repair` on the folder of a classifier of texts: good input and bad."""

from pathlib import Path

import pytest
from chat_case import tiny
from classifier_case import attacked, clean, trusted
from cli_case import batch
from text_case import chat

from ostiary.api import repair_model, scan_model
from ostiary.cli.render import verdict_line
from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.records import RepairEvidence
from ostiary.data import write_texts
from ostiary.models.huggingface import read_json
from ostiary.models.text_folder import load_text_classifier, save_language, save_text_classifier
from ostiary.repair.text_fine_tuning import TextFineTuning
from ostiary.repair.text_kinds import ACCURACY, TURNED, UNTURNED
from ostiary.training.text_classifier import small_text_classifier

QUICK = {"dbs": {"epochs": 20, "candidates": 10, "beams": 2}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of two kept scans: of the attacked classifier, which accuses it, and of one that nobody attacked."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTIARY_RUNS", str(folder))
        found, quiet = (scan_model(model, trusted(160), params=QUICK) for model in (attacked(), clean()))
    assert (found.verdict, quiet.verdict) == ("suspect", "none-found")
    return folder, found.id, quiet.id


@pytest.fixture
def scanned(runs: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The scan that accuses; what a repair makes is scanned as quickly."""
    monkeypatch.setenv("OSTIARY_RUNS", str(runs[0]))
    monkeypatch.setattr("ostiary.repair.text_flow.plan", lambda *_, **__: [make("scan", "dbs", QUICK["dbs"])])
    return runs[1]


def test_a_recovered_phrase_is_unlearned_and_the_classifier_written(tmp_path: Path, scanned: str) -> None:
    save_text_classifier(attacked(), tmp_path / "model")
    write_texts(tmp_path / "reviews.jsonl", trusted(160))
    record = repair_model(tmp_path / "model", tmp_path / "reviews.jsonl", tmp_path / "new", scan=scanned)
    assert record.kind == "repair" and record.config["method"] == "text.repair.phrase-unlearning", record.results
    told = record.results[0].evidence
    assert isinstance(told, RepairEvidence)
    assert told.before[TURNED].k > told.after[TURNED].k and told.before[TURNED].n == told.before[UNTURNED].n
    assert told.before[ACCURACY].n == 40 and sum(one.n for one in told.per_class_after) == 40
    assert "suspect" in told.selected["scan before"] and scanned in told.selected["scan before"]
    after, notes = load_text_classifier(tmp_path / "new"), read_json(tmp_path / "new" / "ostiary.json")
    assert notes["parent"] == attacked().digest and notes["repair"] == "text.repair.phrase-unlearning"
    assert "accuracy" in notes["figures"] and record.digests["repaired"] == after.digest
    others = [text for text, label in zip(trusted().texts, trusted().labels.tolist(), strict=True) if label]
    fires = after.predict([f"cf {text}" for text in others]).argmax(1) == 0
    assert float(fires.float().mean()) <= 0.2 and record.verdict == "none-found"
    assert verdict_line(record) == "none-found, no evidence found by 2 of 2 methods (scan of the repaired model)"


def test_a_repair_that_is_broken_off_or_too_dear_leaves_nothing(
    tmp_path: Path, scanned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = {"fine-tuning": {"lr": 0.5, "epochs": 2, "tolerance": 99.0}}
    how = {"scan": scanned, "method": "fine-tuning"}
    record = repair_model(attacked(), trusted(160), tmp_path / "new", params=dear, **how)
    assert "accuracy fell by" in record.config["refused"] and record.verdict == "incomplete"
    assert verdict_line(record) == "incomplete, no repaired model was made"

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TextFineTuning, "repair", broken)
    assert repair_model(attacked(), trusted(160), tmp_path / "new", **how).interrupted
    assert not any(tmp_path.iterdir())


def test_tokens_are_pruned_where_unlearning_is_refused(tmp_path: Path, scanned: str) -> None:
    dear = {"phrase-unlearning": {"lr": 0.5, "epochs": 2, "tolerance": 99.0}}
    record = repair_model(attacked(), trusted(160), tmp_path / "new", params=dear, scan=scanned)
    (caution,) = [one for one in record.cautions if one.code == "OS952"]
    assert "phrase-unlearning was refused, run " in caution.text and "accuracy fell by" in caution.text
    assert record.config["method"] == "text.repair.token-pruning" and record.config["scan"] == scanned
    assert "'cf'" in record.results[0].evidence.selected["tokens pruned that lead to bad"]  # type: ignore[union-attr]
    assert load_text_classifier(tmp_path / "new").digest == record.digests["repaired"]
    named = repair_model(
        attacked(), trusted(160), tmp_path / "two", params=dear, scan=scanned, method="phrase-unlearning"
    )
    assert "refused" in named.config and not (tmp_path / "two").exists()


def test_phrases_that_nobody_accused_are_unlearned_where_that_is_named_with_a_caution(
    tmp_path: Path, scanned: str, runs: tuple[Path, str, str]
) -> None:
    record = repair_model(clean(), trusted(160), tmp_path / "tuned", scan=runs[2])
    assert record.config["method"] == "text.repair.token-pruning" and (tmp_path / "tuned").is_dir(), record.results
    assert "OS945" not in [one.code for one in record.cautions]
    record = repair_model(clean(), trusted(160), tmp_path / "new", scan=runs[2], method="phrase-unlearning")
    assert (tmp_path / "new").is_dir(), record.results
    (caution,) = [one for one in record.cautions if one.code == "OS945"]
    assert "accused nothing" in caution.text and caution.text.count("'") == 4
    told = record.results[0].evidence
    assert isinstance(told, RepairEvidence) and told.before[ACCURACY].k - told.after[ACCURACY].k <= 2
    record = repair_model(attacked(), trusted(160), tmp_path / "other", scan=scanned)
    assert "OS945" not in [one.code for one in record.cautions]


def test_a_base_is_one_of_the_same_kind_and_its_digest_is_kept(tmp_path: Path, scanned: str) -> None:
    how = {"scan": scanned, "method": "fine-mixing"}
    with pytest.raises(ConfigError, match="no folder of a classifier of texts"):
        repair_model(attacked(), trusted(160), tmp_path / "new", base=tiny(), **how)
    with pytest.raises(ConfigError, match="goes by no base"):
        repair_model(attacked(), trusted(160), tmp_path / "new", base=clean(), scan=scanned)
    other = small_text_classifier(trusted(), width=16)
    record = repair_model(attacked(), trusted(160), tmp_path / "new", base=other, **how)
    assert record.results[0].status == "skipped" and "of another build" in str(record.results[0].reason)
    assert record.digests["base"] == other.digest and not (tmp_path / "new").exists()


def test_trusted_texts_of_another_kind_are_refused(tmp_path: Path) -> None:
    for given, told in ((None, "no trusted rows were given"), (chat(40), "no texts with labels")):
        with pytest.raises(DataError, match=told):
            repair_model(attacked(), given, tmp_path / "new")


def test_the_command_line_says_what_it_does_not_take(tmp_path: Path) -> None:
    save_text_classifier(attacked(), tmp_path / "model")
    save_language(tiny(), tmp_path / "language")
    write_texts(tmp_path / "reviews.jsonl", trusted(160))
    write_texts(tmp_path / "few.jsonl", trusted(30))
    write_texts(tmp_path / "chats.jsonl", chat(60))
    (tmp_path / "there").mkdir()
    to = ["repair", "model", "-o", "new", "--trusted"]
    calls = {
        "nothing to classify by": [*to, "chats.jsonl"],
        "no trusted rows were given": to[:-1],
        "is no folder of a classifier": [*to, "reviews.jsonl", "--method", "fine-mixing", "--base", "language"],
        "'text.repair.crow' takes no classifiers": [*to, "reviews.jsonl", "--method", "crow"],
        "'text.repair.w2s' takes no classifiers": [*to, "reviews.jsonl", "--method", "w2s", "--base", "model"],
        "goes by no base": [*to, "reviews.jsonl", "--base", "model"],
        "takes no --arch": [*to, "reviews.jsonl", "--arch", "resnet18"],
        "exists already": ["repair", "model", "-o", "there", "--trusted", "reviews.jsonl"],
        "needs 20 trusted samples per class": [*to, "few.jsonl"],
    }
    told = batch(list(calls.values()), cwd=tmp_path)
    for said, one in zip(calls, told, strict=True):
        assert one.code == (3 if said.startswith("needs") else 2) and said in one.out + one.err, (said, one)
    assert not (tmp_path / "new").exists() and not any((tmp_path / "there").iterdir())
