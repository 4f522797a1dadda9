"""Mahalanobis distances: Lee et al. 2018, sec. 2.1; here from the class of the label, which poison lies far from."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import roc_auc_score

from ostiary.attacks.badnets import BadNets
from ostiary.core.decide import exceeds
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.models.gaussian import Within, distances, within
from ostiary.screen.mahalanobis import Mahalanobis
from ostiary.screen.summary import suspects_of


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return Mahalanobis().screen(lab.poisoned.data, lab.model, lab.trusted, run=Run())


def area(lab: Any, found: SampleScores) -> float:
    return float(roc_auc_score(lab.is_poisoned, found.scores.numpy()))


def test_poison_leads_the_ranking_over_all_classes_and_its_class_is_accused(lab: Any, found: SampleScores) -> None:
    assert area(lab, found) >= 0.99
    flagged = suspects_of(found, lab.poisoned.data, Mahalanobis.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).mean() <= 0.02


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = Mahalanobis().screen(lab.part, lab.twin, lab.trusted, run=Run())
    assert not suspects_of(found, lab.part, Mahalanobis.card).any()


def test_every_class_of_an_all_to_all_attack_is_accused(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", mapping="all-to-all", rate=0.1).poison(lab.part, run=Run(seed=0))
    found = Mahalanobis().screen(made.data, train_on(made.data), lab.trusted, run=Run())
    accused = [row.label for row in found.per_class if exceeds(row, Mahalanobis.card.limits)]
    assert len(accused) >= 9
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    assert roc_auc_score(poisoned, found.scores.numpy()) >= 0.97


def test_mutant_that_whitens_along_one_line_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostiary.screen import mahalanobis as module

    def narrowed(features: np.ndarray, labels: np.ndarray, classes: int) -> Within:
        honest = within(features, labels, classes)
        return dataclasses.replace(honest, whiten=np.random.default_rng(0).normal(size=(len(honest.whiten), 1)))

    monkeypatch.setattr(module, "within", narrowed)
    assert area(lab, Mahalanobis().screen(lab.poisoned.data, lab.model, lab.trusted, run=Run())) < 0.99


@pytest.mark.parametrize(("far", "n", "accused"), [(1, 12, False), (2, 30, False), (70, 1000, True), (8, 120, True)])
def test_a_few_far_samples_of_a_small_class_are_chance(far: int, n: int, accused: bool) -> None:
    """One of twelve is 8 % of a class, and happens in one such class in nine."""
    rows = [ClassScore(label=0, score=far / n, measures={"far": far / n, "n": n, "suspected": far})] * 10
    assert exceeds(Mahalanobis()._chances(rows)[0], Mahalanobis.card.limits) == accused


def test_distances_are_scipys() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 3
    features = rng.normal(size=(3000, 5)) @ rng.normal(size=(5, 5)) + labels[:, None]
    ruler = within(features, labels, 3)
    precision = ruler.whiten @ ruler.whiten.T
    exact = [mahalanobis(one, ruler.means[label], precision) ** 2 for one, label in zip(features, labels, strict=True)]
    assert distances(ruler, features, labels) == pytest.approx(exact)
    spread = ruler.centred(features[labels == 1], 1)
    assert np.cov(spread.T, bias=True) == pytest.approx(np.eye(5), abs=0.25)
