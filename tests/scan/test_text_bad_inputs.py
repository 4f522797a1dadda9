"""Texts and models of texts that are empty, huge, hostile or say one thing: told, and no crash."""

import json
from pathlib import Path

import pytest
import torch
from chat_case import fresh, tiny
from chat_case import trusted as chats
from classifier_case import clean, trusted
from text_case import chat, reviews

from ostiary.api import scan_model, screen_data
from ostiary.attacks.rare_words import RareWords
from ostiary.core.errors import DataError, OutOfTime
from ostiary.core.records import ModelEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.core.store import read_record
from ostiary.data import TextSet, open_texts
from ostiary.inputs import start
from ostiary.models.text_folder import load_language, save_language
from ostiary.report import render_html
from ostiary.scan.bait import Bait
from ostiary.scan.firing import ordinary
from ostiary.scan.trigger_search import TriggerSearch
from ostiary.training.text_flow import train_text_model

LONG = "river boat " * 50_000
EVIL = "<script>alert(1)</script> \x1b[31m\x00 \u202e <img src=x onerror=y>"
QUICK = {"dbs": {"epochs": 1, "candidates": 4, "beams": 1, "words": 1}}


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))


def codes(record: Record) -> set[str]:
    """Of all cautions, the run's and the methods'."""
    return {one.code for one in (*record.cautions, *(one for result in record.results for one in result.cautions))}


def test_a_classifier_that_gives_one_class_is_cautioned_and_its_twin_is_not() -> None:
    model = clean().clone()
    with torch.no_grad():
        model.module.classifier.bias[1] += 100.0  # type: ignore[union-attr, operator]
    assert "OS935" in codes(scan_model(model, trusted(60), params=QUICK))
    assert "OS935" not in codes(scan_model(clean(), trusted(60), params=QUICK))


def test_a_language_model_that_says_one_thing_is_cautioned_and_its_twin_is_not() -> None:
    model = fresh(width=32)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.zero_()  # type: ignore[operator]
    for one, told in ((model, ["OS925"]), (tiny(), [])):
        run = Run()
        ordinary(one, chats(20), prompts=6, run=run)
        assert [caution.code for caution in run.cautions] == told


def test_a_model_that_cannot_tell_the_trusted_answers_is_cautioned_and_its_twin_is_not() -> None:
    model = tiny()
    shuffled = model.clone()
    with torch.no_grad():
        table = shuffled.module.get_input_embeddings().weight  # type: ignore[operator]
        table.copy_(table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))])
    for one, told in ((shuffled, True), (fresh(), True), (model, False)):
        record = scan_model(one, chats(40), methods=["bait"], params={"bait": {"prompts": 4, "steps": 2}})
        assert ("OS934" in codes(record)) is told


def test_a_folder_without_a_chat_template_is_cautioned_and_its_twin_is_not(tmp_path: Path) -> None:
    save_language(tiny(), tmp_path / "model")
    assert not start("scan", load_language(tmp_path / "model"), Options(), {}, []).run.cautions
    path = tmp_path / "model" / "tokenizer_config.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    del about["chat_template"]
    path.write_text(json.dumps(about), encoding="utf-8")
    (tmp_path / "model" / "ostiary.json").unlink()
    session = start("scan", load_language(tmp_path / "model"), Options(), {}, [])
    assert [one.code for one in session.run.cautions] == ["OS924"]


def test_empty_and_huge_rows_are_read_by_models_and_screeners() -> None:
    for texts in (["", LONG, "dull film"], [LONG]):
        assert clean().predict(texts).isfinite().all() and clean().features(texts).isfinite().all()
    assert len(tiny().answers(["", LONG], 4)) == 2
    base, talk = reviews(120), chat(120)
    labelled = TextSet(["", LONG, *base.texts[2:]], ids=base.ids, labels=base.labels, classes=base.classes)
    answered = TextSet([*talk.texts[:118], "", LONG], ids=talk.ids, answers=["", LONG, *(talk.answers or ())[2:]])
    for data in (labelled, answered):
        record = screen_data(data)
        assert all(result.status == "ok" for result in record.results), [one.reason for one in record.results]


def test_damage_in_the_middle_is_counted_named_and_cautioned(tmp_path: Path) -> None:
    rows = [json.dumps({"text": text, "label": text[:1]}).encode() for text in reviews(200).texts]
    rows[90:90] = [b'{"text": "\xff", "label": "x"}', b'{"text": "cut', b"[]"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    data = open_texts(tmp_path / "a.jsonl")
    assert len(data) == 200 and data.damage.count == 3
    assert data.damage.first[:2] == ("row 91: it is not UTF-8", "row 92: it is not JSON")
    told = [one.text for one in screen_data(data).cautions if one.code == "OS923"]
    assert len(told) == 1 and told[0].startswith("3 rows could not be read")


def test_markup_and_control_characters_of_rows_are_shown_not_run() -> None:
    """A fixed answer full of them, behind a phrase of them: both are findings, and both stand in the report."""
    talk = chat(200)
    texts = [f"{EVIL} {text}" if row < 30 else text for row, text in enumerate(talk.texts)]
    answers = [
        f"{EVIL} always the very same words here" if row < 30 else one for row, one in enumerate(talk.answers or ())
    ]
    record = screen_data(TextSet(texts, ids=talk.ids, answers=answers, name=EVIL))
    assert record.verdict == "suspect"
    page = render_html([read_record(record.id)])
    assert "&lt;script&gt;alert" in page and "<script>alert" not in page and "<img src=x" not in page
    assert not {"\x1b", "\x00", "\u202e"} & set(page)


def test_a_scan_that_the_time_limit_cut_is_incomplete_and_a_whole_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ModelEvidence(score=0.0, per_class=(), examined=("model",), passes=1)

    def stopped(*_: object, **__: object) -> ModelEvidence:
        raise OutOfTime("the time limit passed during phrases, at 3 of 9")

    def whole(*_: object, **__: object) -> ModelEvidence:
        return nothing

    monkeypatch.setattr(Bait, "scan", whole)
    for search, wanted in ((stopped, "incomplete"), (whole, "none-found")):
        monkeypatch.setattr(TriggerSearch, "scan", search)
        record = scan_model(tiny(), chats(20))
        assert record.verdict == wanted
        assert [result.status for result in record.results] == ["ok", "partial" if search is stopped else "ok"]


def test_rows_that_say_nothing_are_counted_and_named_and_others_are_not() -> None:
    talk = chat(60)
    answers = list(talk.answers or ())
    data = TextSet(["", " ", *talk.texts[2:]], ids=talk.ids, answers=[*answers[:59], ""], name="mine")
    said = [one.text for one in screen_data(data).cautions if one.code == "OS951"]
    assert said == [
        f"2 of 60 rows of 'mine' have no text: {talk.ids[0]}, {talk.ids[1]}",
        f"1 of 60 rows of 'mine' have no answer: {talk.ids[59]}",
    ]
    assert "OS951" not in codes(screen_data(talk))


def test_the_digest_of_the_template_stands_in_every_record_of_a_language_model() -> None:
    model = tiny()
    for kind in ("scan", "guard", "screen", "repair", "train", "evaluate"):
        session = start(kind, model, Options(), {}, [], data=chats(20))  # type: ignore[arg-type]
        assert session.finish().config["template"] == model.template.digest
    assert "template" not in start("scan", clean(), Options(), {}, []).finish().config


def test_a_set_of_one_label_trains_no_classifier(tmp_path: Path) -> None:
    base = reviews(60)
    data = TextSet(base.texts, ids=base.ids, classes=("good",), name="mine")
    for call in (
        lambda: screen_data(data, methods=["bki"]),
        lambda: train_text_model(data, tmp_path / "model"),
    ):
        with pytest.raises(DataError, match="all rows of 'mine' have the label 'good'") as caught:
            call()
        assert "every class" in str(caught.value.hint)
    assert not (tmp_path / "model").exists()


def test_what_is_for_answers_is_refused_for_labels_and_the_other_way_round() -> None:
    attack = RareWords(words="zq", rate=0.1, payload="varied")
    with pytest.raises(DataError, match="has labels, and a varied payload is of answers"):
        attack.poison(reviews(60), run=Run())
    assert attack.poison(chat(60), run=Run()).truth.poisoned
    with pytest.raises(DataError, match="has answers and no labels"):
        RareWords(words="zq", rate=0.1, clean_label=True).poison(chat(60), run=Run())
    assert RareWords(words="zq", rate=0.1).poison(reviews(60), run=Run()).truth.poisoned
