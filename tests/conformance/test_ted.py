"""TED: Mo et al. 2024: triggered inputs lie amid other classes in early layers, and come to their target late."""

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ostiary.core.run import Run
from ostiary.guard.ted import FittedTed, Ted, seen_by
from ostiary.models.classifier import TorchClassifier


@pytest.fixture(scope="module")
def fitted(lab: Any) -> FittedTed:
    return Ted().fit(lab.model, lab.trusted, run=Run())


def plain_of(lab: Any) -> Tensor:
    return lab.test.take(range(len(lab.test)))


def course(guard: FittedTed, model: TorchClassifier, x: Tensor) -> Tensor:
    features, logits = seen_by(model, guard.layers, x)
    return guard.course(torch.cat(features, 1), logits.argmax(1))


def area(lab: Any, guard: FittedTed) -> float:
    low, high = (guard.score(lab.model, x) for x in (plain_of(lab), lab.triggered()))
    return float(roc_auc_score([0] * len(low) + [1] * len(high), torch.cat([low, high])))


def test_triggered_inputs_come_to_their_target_from_afar(lab: Any, fitted: FittedTed) -> None:
    plain, triggered = (course(fitted, lab.model, x).mean(0) for x in (plain_of(lab), lab.triggered()))
    assert bool((plain < 1).all())
    assert float(triggered[0]) > 5 and float(triggered[-1]) < 1


def test_triggered_inputs_are_told_from_others(lab: Any, fitted: FittedTed) -> None:
    assert area(lab, fitted) >= 0.97
    assert float(fitted.flagged(fitted.score(lab.model, lab.triggered())).float().mean()) >= 0.95
    assert float(fitted.flagged(fitted.score(lab.model, plain_of(lab))).float().mean()) <= 0.15


def test_the_twin_lets_triggered_inputs_pass(lab: Any) -> None:
    guard = Ted().fit(lab.twin, lab.trusted, run=Run())
    assert float(guard.flagged(guard.score(lab.twin, lab.triggered())).float().mean()) <= 0.2


def test_mutant_that_looks_at_the_last_layers_alone_fails(lab: Any, fitted: FittedTed) -> None:
    whiten = fitted.whiten.clone()
    whiten[:-2] = 0
    assert area(lab, dataclasses.replace(fitted, whiten=whiten)) < 0.97


def test_mutant_whose_trusted_labels_are_shuffled_fails(lab: Any, fitted: FittedTed) -> None:
    order = torch.randperm(len(fitted.labels), generator=torch.Generator().manual_seed(0))
    assert area(lab, dataclasses.replace(fitted, labels=fitted.labels[order])) < 0.97
