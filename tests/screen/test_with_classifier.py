"""Screening labelled texts with a classifier that was trained on them, and repairs of language models by a base."""

from pathlib import Path

import pytest
from chat_case import based, tiny
from chat_case import trusted as chats
from classifier_case import attacked, poisoned
from text_case import chat, reviews

from ostiary.api import repair_model, screen_data
from ostiary.core.errors import ConfigError, DataError
from ostiary.data import TextSet, digits
from ostiary.models.text_folder import save_text_classifier
from ostiary.screen import texts as flow


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))


def rows() -> TextSet:
    return poisoned(reviews(2000), "rare-words", words="cf", rate=0.05).subset(list(range(300)))


def test_a_classifier_beside_labelled_texts_adds_bki(tmp_path: Path) -> None:
    save_text_classifier(attacked(), tmp_path / "model")
    record = screen_data(rows(), tmp_path / "model")
    assert [result.method for result in record.results] == ["text.screen.label-contradiction", "text.screen.bki"]
    assert all(result.status == "ok" for result in record.results)
    assert record.digests["model"] == attacked().digest


def test_a_method_that_needs_a_classifier_gets_one_that_is_trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def quick(data: TextSet, run: object) -> object:
        asked.append(data.name)
        return attacked()

    monkeypatch.setattr(flow, "quick_text_classifier", quick)
    record = screen_data(rows(), methods=["bki"])
    assert len(asked) == 1 and record.results[0].status == "ok" and "model" in record.digests
    screen_data(rows(), methods=["label-contradiction"])
    assert len(asked) == 1, "a model was trained that nothing needs"


def test_a_model_of_another_kind_or_task_is_refused() -> None:
    with pytest.raises(DataError, match="labels, which a classifier gives"):
        screen_data(rows(), tiny())
    with pytest.raises(DataError, match="answers, which a language model gives"):
        screen_data(chat(60), attacked())
    three = TextSet(["a b", "c d", "e f"], ids=list("abc"), labels=rows().labels[:3], classes=("x", "y", "z"))
    with pytest.raises(DataError, match="has 3 classes"):
        screen_data(three, attacked())
    with pytest.raises(DataError, match="the trusted samples are images"):
        screen_data(rows(), trusted=digits("test"))
    with pytest.raises(ConfigError, match="looks at trusted texts"):
        screen_data(rows(), attacked(), trusted=rows())


def test_trusted_texts_are_for_the_method_that_looks_at_them() -> None:
    record = screen_data(rows(), methods=["onion"], trusted=reviews(200, seed=9))
    assert record.results[0].status == "ok" and "model" not in record.digests and "trusted" in record.digests
    assert [one.subject for one in record.results[0].findings] == ["phrase:cf"] and record.verdict == "suspect"
    alone = screen_data(rows(), methods=["onion"])
    assert alone.results[0].status == "skipped" and "trusted samples" in str(alone.results[0].reason)
    assert alone.verdict == "incomplete"


def test_a_base_is_for_the_repairs_that_go_by_one(tmp_path: Path) -> None:
    for method in (None, "crow"):
        with pytest.raises(ConfigError, match="goes by no base"):
            repair_model(tiny(), chats(60), tmp_path / "new", method=method, base=based())
    with pytest.raises(ConfigError, match="no folder of a language model"):
        repair_model(tiny(), chats(60), tmp_path / "new", method="fine-mixing", base=tmp_path)
