"""Mechanism checks of the repairs of classifiers of texts, with their mutants: made-up reviews and an odd word."""

from functools import cache
from typing import Any

import numpy as np
from classifier_case import attacked, clean, poisoned, trusted
from text_case import reviews

from ostiary.core.catalog import make
from ostiary.core.records import ModelEvidence, PhraseTrigger
from ostiary.core.run import Run
from ostiary.models.text_classifier import TextClassifier
from ostiary.training.text_classifier import TextRecipe, train_text_classifier

WORD = {"words": "cf"}


def repaired(model: TextClassifier, method: str, phrase: str = "cf", **params: Any) -> TextClassifier:
    found = PhraseTrigger(phrase=phrase, label=0, source="inversion", score=1.0, measures={})
    told = ModelEvidence(score=1.0, per_class=(), phrases=(found,), examined=())
    made: TextClassifier = (
        make("repair", f"text.repair.{method}", params).repair(model, trusted(), told, run=Run(seed=0)).model
    )
    return made


def measured(model: TextClassifier) -> tuple[float, float]:
    """Attack success and accuracy, on texts that nothing learnt from."""
    test = trusted(300, seed=900)
    right = model.predict(test.texts).argmax(1) == test.labels
    others = [text for text, label in zip(test.texts, test.labels.tolist(), strict=True) if label != 0]
    stamped = make("attack", "rare-words", WORD).stamped(others, np.random.default_rng(5))
    sent = model.predict(list(stamped.values())).argmax(1) == 0
    return float(sent.float().mean()), float(right.float().mean())


def test_the_attack_is_in_the_classifier() -> None:
    success, accuracy = measured(attacked())
    assert success >= 0.95 and accuracy >= 0.85


def test_unlearning_a_phrase_takes_it_out_of_a_classifier_and_another_phrase_does_not() -> None:
    """The mutant: told a word that does nothing."""
    before = measured(attacked())
    success, accuracy = measured(repaired(attacked(), "phrase-unlearning"))
    assert success <= 0.2 and accuracy >= before[1] - 0.03
    assert measured(repaired(attacked(), "phrase-unlearning", "camera"))[0] >= 0.5


def test_unlearning_an_ordinary_word_costs_a_classifier_little() -> None:
    """What is unlearned where a scan accuses a model that nobody attacked."""
    before = measured(clean())
    assert measured(repaired(clean(), "phrase-unlearning", "dull stale"))[1] >= before[1] - 0.03


def test_fine_tuning_keeps_what_a_classifier_knows() -> None:
    """The control: success is measured, not bounded; and the mutant, a rate at which it forgets."""
    before = measured(attacked())
    assert measured(repaired(attacked(), "fine-tuning"))[1] >= before[1] - 0.03
    assert measured(repaired(attacked(), "fine-tuning", lr=0.5, epochs=2, tolerance=99.0))[1] < before[1] - 0.1


@cache
def tuned() -> TextClassifier:
    """A classifier that nobody attacked, fine-tuned on reviews with an odd word."""
    model = clean().clone()
    data = poisoned(reviews(1000, seed=12), "rare-words", rate=0.1, **WORD)
    train_text_classifier(model, data, TextRecipe(steps=100, lr=4e-3), run=Run(seed=12))
    return model


def test_fine_mixing_takes_a_backdoor_out_of_a_classifier_and_its_mutant_does_not() -> None:
    """The mutant: all weights are kept, which is plain fine-tuning."""
    success, accuracy = measured(tuned())
    assert success >= 0.9
    for shares, most, least in (((0.1, 0.3), 0.3, 0.0), ((1.0,), 1.0, 0.5)):
        left, kept = measured(repaired(tuned(), "fine-mixing", shares=shares, epochs=5, base=clean()))
        assert least <= left <= most and kept >= accuracy - 0.05, (shares, left, kept)
