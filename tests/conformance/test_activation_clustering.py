"""Activation Clustering: Chen et al. 2018, table 1 (F1 near 100 % per class at 10, 15 and 33 % poison of a class)."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.activation_clustering import ActivationClustering
from ostiary.screen.features import SetFeatures
from ostiary.screen.summary import suspects_of


def f1(flagged: np.ndarray, truth: np.ndarray) -> float:
    return 2 * int((flagged & truth).sum()) / max(1, int(flagged.sum() + truth.sum()))


@pytest.fixture(scope="module")
def found(lab: Any) -> Any:
    return ActivationClustering().screen(lab.poisoned.data, lab.model, None, run=Run())


def test_a_third_of_the_class_is_poison(lab: Any) -> None:
    assert 0.3 < lab.is_poisoned[lab.in_target].mean() < 0.36


def test_the_smaller_group_of_the_target_is_the_poison(lab: Any, found: Any) -> None:
    assert f1(found.suspected & lab.in_target, lab.is_poisoned) >= 0.95


def test_the_verdict_names_the_target_alone(lab: Any, found: Any) -> None:
    top = max(found.per_class, key=lambda row: row.measures["separation"])
    assert top.label == 0
    assert f1(suspects_of(found, lab.poisoned.data, ActivationClustering.card), lab.is_poisoned) >= 0.95


def test_the_scores_rank_the_poison_first(lab: Any, found: Any) -> None:
    scores = found.scores.numpy()[lab.in_target]
    first = np.argsort(-scores)[: int(lab.is_poisoned.sum())]
    assert lab.is_poisoned[lab.in_target][first].mean() >= 0.95


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = ActivationClustering().screen(lab.part, lab.twin, None, run=Run())
    assert not suspects_of(found, lab.part, ActivationClustering.card).any()


def test_mutant_with_shuffled_features_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostiary.screen import classes

    honest = classes.features_of

    def shuffled(model: TorchClassifier, data: Any, run: Run) -> SetFeatures:
        whole = honest(model, data, run)
        rng = np.random.default_rng(0)
        features = whole.features.copy()
        for label in range(10):
            rows = np.flatnonzero(data.labels.numpy() == label)
            features[rows] = features[rng.permutation(rows)]
        return dataclasses.replace(whole, features=features)

    monkeypatch.setattr(classes, "features_of", shuffled)
    found = ActivationClustering().screen(lab.poisoned.data, lab.model, None, run=Run())
    assert f1(found.suspected & lab.in_target, lab.is_poisoned) < 0.95


def test_autograd_is_off_for_the_whole_feature_pass(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each batch runs once, through hooks that do not pile up."""
    from ostiary.screen import features

    honest = TorchClassifier.logits
    calls: list[tuple[int, bool]] = []

    def watched(self: TorchClassifier, x: torch.Tensor, /) -> torch.Tensor:
        calls.append((len(x), torch.is_grad_enabled()))
        return honest(self, x)

    monkeypatch.setattr(TorchClassifier, "logits", watched)
    monkeypatch.setattr(features, "batch_size", lambda _: 20)
    part = lab.part.subset(range(100))
    features.features_of(lab.twin, part, Run())
    assert [n for n, _ in calls if n == 20] == [20] * 5
    assert not any(grad for _, grad in calls)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lab.twin.module.modules())
