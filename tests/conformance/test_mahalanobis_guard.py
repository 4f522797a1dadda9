"""The Mahalanobis guard: Lee et al. 2018, sec. 2.1, from the class that the model predicts."""

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ostiary.core.run import Run
from ostiary.guard.mahalanobis import FittedMahalanobis, Mahalanobis


@pytest.fixture(scope="module")
def fitted(lab: Any) -> FittedMahalanobis:
    return Mahalanobis().fit(lab.model, lab.trusted, run=Run())


def scores(lab: Any, guard: FittedMahalanobis) -> tuple[torch.Tensor, torch.Tensor]:
    plain = guard.score(lab.model, lab.test.take(range(len(lab.test))))
    return plain, guard.score(lab.model, lab.triggered())


def area(plain: torch.Tensor, triggered: torch.Tensor) -> float:
    return float(roc_auc_score([0] * len(plain) + [1] * len(triggered), torch.cat([plain, triggered])))


def test_triggered_inputs_are_told_from_others(lab: Any, fitted: FittedMahalanobis) -> None:
    plain, triggered = scores(lab, fitted)
    assert area(plain, triggered) >= 0.97
    assert float((triggered > fitted.threshold).float().mean()) >= 0.95
    assert float((plain > fitted.threshold).float().mean()) <= 0.12


def test_mutant_that_whitens_along_one_line_fails(lab: Any, fitted: FittedMahalanobis) -> None:
    line = torch.randn(len(fitted.whiten), 1, generator=torch.Generator().manual_seed(0))
    assert area(*scores(lab, dataclasses.replace(fitted, whiten=line))) < 0.97
