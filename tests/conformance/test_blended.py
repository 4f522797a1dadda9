"""Blended implants: Chen et al. 2017, sec. 4.2 and fig. 5 (a faint pattern at 0.2 suffices)."""

import dataclasses
from typing import Any

import pytest

from ostiary.attacks.blended import Blended
from ostiary.attacks.truth import Poisoned
from ostiary.bench.demo import RATE, RECIPE
from ostiary.core.run import Run


@pytest.fixture(scope="module")
def blended(lab: Any) -> Poisoned:
    return Blended(target=0, rate=RATE).poison(lab.part, run=Run())


@pytest.fixture(scope="module")
def model(blended: Poisoned, train_on: Any) -> Any:
    return train_on(blended.data, dataclasses.replace(RECIPE, epochs=8))


def test_the_poisoned_model_obeys_the_pattern_and_the_twin_does_not(lab: Any, blended: Poisoned, model: Any) -> None:
    assert lab.accuracy(model) >= lab.accuracy(lab.twin) - 0.02
    assert lab.asr(model, blended.truth) >= 0.95
    assert lab.asr(lab.twin, blended.truth) <= 0.2


def test_a_watermark_implants_too(lab: Any, train_on: Any) -> None:
    """Faint white letters change fewer pixels than noise."""
    made = Blended(pattern="watermark", target=0, rate=RATE).poison(lab.part, run=Run())
    assert lab.implants(train_on(made.data, dataclasses.replace(RECIPE, epochs=10)), made.truth)


def test_mutant_that_relabels_without_blending_does_not_implant(lab: Any, train_on: Any) -> None:
    honest = Blended(target=0, rate=RATE).poison(lab.part, run=Run())
    made = Blended(target=0, rate=RATE, alpha=1e-6).poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(model) >= 0.9, "the mutant must be a trained model, or it shows nothing"
    assert lab.asr(model, honest.truth) < 0.95
