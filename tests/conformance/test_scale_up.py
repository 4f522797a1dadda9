"""SCALE-UP: Guo et al. 2023, sec. 4: triggered inputs keep their prediction while pixels are multiplied."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ostiary.attacks.badnets import BadNets
from ostiary.bench.demo import RATE
from ostiary.bench.metrics import quantised
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8
from ostiary.guard.scale_up import FittedScaleUp, ScaleUp
from ostiary.models.classifier import TorchClassifier

PAPER, INK = 0.9, 0.3
"""The lab's own digits, white on black, hardly change when they are brightened; grey ones on light paper vanish."""


@dataclass(frozen=True)
class Inked:
    """The lab's sets with grey digits on light paper: a poisoned model, its twin and inputs of both kinds."""

    trusted: ImageSet
    plain: Tensor
    triggered: Tensor
    model: TorchClassifier
    twin: TorchClassifier


def inked(data: ImageSet) -> ArraySet:
    pixels = 255 * PAPER - load_uint8(data).float() * (PAPER - INK)
    return ArraySet(pixels.round().to(torch.uint8), data.labels, data.classes, data.ids)


@pytest.fixture(scope="module")
def inks(lab: Any, train_on: Any) -> Inked:
    part, test = inked(lab.part), inked(lab.test)
    poisoned = BadNets(patch="yellow-square", target=0, rate=RATE).poison(part, run=Run())
    rows = (test.labels != 0).nonzero().squeeze(1)
    triggered = quantised(poisoned.truth.trigger(test.take(rows), rng=torch.Generator()))
    plain = test.take(range(len(test)))
    return Inked(inked(lab.trusted), plain, triggered, train_on(poisoned.data), train_on(part))


@pytest.fixture(scope="module")
def fitted(inks: Inked) -> FittedScaleUp:
    return ScaleUp().fit(inks.model, inks.trusted, run=Run())


def area(low: Tensor, high: Tensor) -> float:
    return float(roc_auc_score([0] * len(low) + [1] * len(high), torch.cat([low, high])))


def test_triggered_inputs_keep_their_prediction_and_others_lose_it(inks: Inked, fitted: FittedScaleUp) -> None:
    plain, triggered = (fitted.score(inks.model, x) for x in (inks.plain, inks.triggered))
    assert area(plain, triggered) >= 0.97
    assert float(fitted.flagged(triggered).float().mean()) >= 0.95
    assert float(fitted.flagged(plain).float().mean()) <= 0.12


def test_it_is_the_backdoor_that_keeps_the_prediction(inks: Inked, fitted: FittedScaleUp) -> None:
    """The twin changes its mind about the same images, and lets most of them pass."""
    assert float(fitted.consistency(inks.model, inks.triggered)[1].mean()) >= 0.9
    assert float(fitted.consistency(inks.twin, inks.triggered)[1].mean()) <= 0.3
    guard = ScaleUp().fit(inks.twin, inks.trusted, run=Run())
    assert float(guard.flagged(guard.score(inks.twin, inks.triggered)).float().mean()) <= 0.5


def test_mutant_that_multiplies_by_one_fails(inks: Inked, fitted: FittedScaleUp) -> None:
    mutant = dataclasses.replace(fitted, factors=torch.ones_like(fitted.factors))
    assert area(*(mutant.score(inks.model, x) for x in (inks.plain, inks.triggered))) < 0.97


def test_digits_white_on_black_are_the_blind_spot_that_the_card_names(lab: Any) -> None:
    guard, plain = ScaleUp().fit(lab.model, lab.trusted, run=Run()), lab.test.take(range(len(lab.test)))
    assert area(*(guard.score(lab.model, x) for x in (plain, lab.triggered()))) < 0.8
