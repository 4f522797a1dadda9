"""Isolation of Anti-Backdoor Learning (Li et al. 2021): what is learned soonest although no loss may fall."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.decide import exceeds
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.abl_isolation import AblIsolation, _judged, losses_of
from ostiary.screen.summary import suspects_of
from ostiary.training import Recipe
from ostiary.training.ascent import ascent_step
from ostiary.training.loop import Step


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return AblIsolation().screen(lab.poisoned.data, lab.model, None, run=Run())


def isolates(lab: Any, found: SampleScores) -> bool:
    """Whether what is isolated is poison, and the rest of the poison follows it in the ranking."""
    area = roc_auc_score(lab.is_poisoned, found.scores.numpy())
    return bool(lab.is_poisoned[found.suspected].mean() >= 0.9 and area >= 0.85)


def test_what_is_isolated_is_poison_and_its_class_alone_is_accused(lab: Any, found: SampleScores) -> None:
    assert found.suspected.sum() == round(0.01 * len(lab.poisoned.data))
    assert isolates(lab, found)
    assert [row.label for row in found.per_class if exceeds(row, AblIsolation.card.limits)] == [0]


def test_no_class_of_the_unpoisoned_set_is_accused_though_some_are_easy(lab: Any) -> None:
    found = AblIsolation().screen(lab.part, lab.twin, None, run=Run())
    assert max(row.measures["share"] for row in found.per_class) >= 0.3, "an easy class leads the ranking all the same"
    assert not suspects_of(found, lab.part, AblIsolation.card).any()


def test_mutant_whose_sign_turns_sample_by_sample_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It drives the poison up to gamma, so that something else is isolated."""
    from ostiary.training import ascent as module

    def each(gamma: float, recipe: Recipe, device: torch.device) -> Step:
        def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            logits = model.logits(x)
            losses = cross_entropy(logits, y, reduction="none")
            (torch.sign(losses.detach() - gamma) * losses).mean().backward()
            return losses.mean().detach(), (logits.argmax(1) == y).sum()

        return step

    monkeypatch.setattr(module, "ascent_step", each)
    assert not isolates(lab, AblIsolation().screen(lab.poisoned.data, lab.model, None, run=Run()))


def test_mutant_that_isolates_the_highest_losses_fails(lab: Any, found: SampleScores) -> None:
    """The order of the authors' code, which sorts losses down and takes the first."""
    highest = np.argsort(found.scores.numpy())[: int(found.suspected.sum())]
    suspected = np.isin(np.arange(len(found.scores)), highest)
    assert not isolates(lab, dataclasses.replace(found, scores=-found.scores, suspected=suspected))


@pytest.mark.parametrize(("gamma", "sign"), [(0.0, 1), (100.0, -1)])
def test_the_gradient_turns_round_below_gamma(lab: Any, gamma: float, sign: int) -> None:
    model, recipe = lab.twin.clone(), Recipe(precision="fp32")
    x, y = lab.test.take(range(16)), (lab.test.labels[:16] + 1) % 10
    mean = cross_entropy(model.logits(x), y)
    plain = torch.autograd.grad(mean, list(model.module.parameters()))
    loss, right = ascent_step(gamma, recipe, torch.device("cpu"))(model, x, y)
    assert float(loss) == pytest.approx(float(mean.detach())) and int(right) == 0
    for parameter, gradient in zip(model.module.parameters(), plain, strict=True):
        assert torch.allclose(parameter.grad, sign * gradient, atol=1e-6)


def test_losses_are_torchs() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 4
    exact = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    assert losses_of(logits, labels) == pytest.approx(exact.numpy())


def test_depth_is_over_the_median_class_and_chance_is_drawing_without_replacement() -> None:
    row = ClassScore(label=1, score=0.5, measures={"n": 100, "suspected": 5})
    found = _judged(row, np.array([2.0, 6.0, 1.0]), 10, 1000).measures
    assert found["depth"] == pytest.approx(3)
    assert found["chance"] == pytest.approx(3 * sum(hypergeom.pmf(k, 1000, 100, 10) for k in range(5, 11)))
