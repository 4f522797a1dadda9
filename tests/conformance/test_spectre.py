"""SPECTRE: Hayase et al. 2021; a robust covariance makes poison stand out that the plain one hides."""

from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm
from sklearn.metrics import roc_auc_score

from ostiary.attacks.badnets import BadNets
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.screen import spectre
from ostiary.screen.spectre import Spectre, best_scores, que_scores, robust_part
from ostiary.screen.summary import suspects_of

BOUND = 0.34
"""The declared bound on the poison of the lab's target, as the paper assumes one; never read from the truth."""
FEW = 0.015
"""18 samples, 13 % of the target: the paper's range, up to a tenth or so of a class."""
N, POISONED, D = 1000, 100, 20


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return Spectre(epsilon=BOUND).screen(lab.poisoned.data, lab.model, None, run=Run())


@pytest.fixture(scope="module")
def stretched() -> np.ndarray:
    """Points [1000, 20] of falling variance; the first hundred are poison: a small step along quiet directions."""
    points = np.random.default_rng(0).normal(size=(N, D)) * np.geomspace(10, 0.1, D)
    points[:POISONED, -5:] += 0.8
    return points - points.mean(0)


@pytest.fixture(scope="module")
def gross() -> tuple[np.ndarray, np.ndarray]:
    """Points [1000, 8] of which a tenth lie far out in one place, and their honest covariance."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(8, 8))
    points = rng.normal(size=(N, 8)) @ mix
    points[:POISONED] = 10 * rng.normal(size=8) + rng.normal(size=(POISONED, 8))
    return points, mix.T @ mix


def left(lab: Any, scores: np.ndarray) -> float:
    """Share of the poison that survives the removal of the 1.5 eps n highest scores of each class."""
    labels, keep = lab.poisoned.data.labels.numpy(), np.ones(len(scores), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        keep[rows[np.argsort(-scores[rows])[: int(1.5 * BOUND * len(rows))]]] = False
    return float((keep & lab.is_poisoned).sum() / lab.is_poisoned.sum())


def area(points: np.ndarray) -> float:
    """AUROC of the scores for the first hundred points."""
    return float(roc_auc_score(np.arange(len(points)) < POISONED, best_scores(points, 0.15)[0]))


def off(estimate: np.ndarray, honest: np.ndarray) -> float:
    """How far a covariance is from the honest one, in the honest one's own units (Mahalanobis norm)."""
    whiten = np.linalg.inv(np.linalg.cholesky(honest))
    return float(np.linalg.norm(whiten @ estimate @ whiten.T - np.eye(len(honest)), 2))


def test_removal_takes_nearly_all_poison(lab: Any, found: SampleScores) -> None:
    assert left(lab, found.scores.numpy()) <= 0.05


def test_a_small_group_leads_the_ranking_and_its_class_alone_is_accused(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", target=0, rate=FEW).poison(lab.part, run=Run(seed=0))
    found = Spectre().screen(made.data, train_on(made.data), None, run=Run())
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    flagged = suspects_of(found, made.data, Spectre.card)
    assert roc_auc_score(poisoned, found.scores.numpy()) >= 0.99
    assert (flagged & poisoned).sum() >= 0.8 * poisoned.sum()
    assert (flagged & ~poisoned).sum() <= 0.2 * poisoned.sum()


def test_every_class_of_an_all_to_all_attack_is_accused(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", mapping="all-to-all", rate=0.1).poison(lab.part, run=Run(seed=0))
    found = Spectre().screen(made.data, train_on(made.data), None, run=Run())
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    flagged = suspects_of(found, made.data, Spectre.card)
    assert roc_auc_score(poisoned, found.scores.numpy()) >= 0.97
    assert (flagged & poisoned).sum() >= 0.9 * poisoned.sum()


@pytest.mark.parametrize("epsilon", [0.2, BOUND])
def test_the_unpoisoned_set_has_no_suspects(lab: Any, epsilon: float) -> None:
    found = Spectre(epsilon=epsilon).screen(lab.part, lab.twin, None, run=Run())
    assert not suspects_of(found, lab.part, Spectre.card).any()


def test_poison_along_quiet_directions_is_found_where_the_top_direction_shows_nothing(stretched: np.ndarray) -> None:
    top = np.linalg.svd(stretched, full_matrices=False)[2][0]
    assert roc_auc_score(np.arange(N) < POISONED, (stretched @ top) ** 2) <= 0.6
    assert area(stretched) >= 0.99


def test_mutant_without_the_filter_fails(stretched: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectre, "robust_part", lambda points, _: np.arange(len(points)))
    assert area(stretched) < 0.99


def test_mutant_that_filters_at_random_leaves_poison(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def values(white: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).normal(size=len(white))

    monkeypatch.setattr(spectre, "_heaviest_form", values)
    found = Spectre(epsilon=BOUND).screen(lab.poisoned.data, lab.model, None, run=Run())
    assert left(lab, found.scores.numpy()) > 0.05


def test_the_filters_covariance_is_near_the_honest_one_and_the_plain_one_is_not(
    gross: tuple[np.ndarray, np.ndarray],
) -> None:
    points, honest = gross
    kept = robust_part(points, 0.1)
    assert not (kept < POISONED).any()
    assert off(np.cov(points[kept].T), honest) <= 0.5
    assert off(np.cov(points.T), honest) >= 10


def test_scores_are_the_papers_formula() -> None:
    points = np.random.default_rng(2).normal(size=(50, 3)) * [1.0, 2.0, 3.0]
    kept = np.arange(30)
    place, covariance = points[kept].mean(0), np.cov(points[kept].T, bias=True)
    variance, axes = np.linalg.eigh(covariance)
    white = (points - place) @ axes / np.sqrt(variance)
    s = np.cov(white.T, bias=True)
    q = expm(4 * (s - np.eye(3)) / (np.linalg.norm(s, 2) - 1))
    assert que_scores(points, kept) == pytest.approx(np.einsum("ni,ij,nj->n", white, q, white) / np.trace(q))


def test_the_number_of_directions_is_that_in_which_the_poison_lies() -> None:
    points = np.random.default_rng(3).normal(size=(N, 33)) * np.geomspace(10, 1, 33)
    points[:POISONED, 5:9] += 12
    points -= points.mean(0)
    areas = {
        k: roc_auc_score(np.arange(N) < POISONED, que_scores(points[:, :k], robust_part(points[:, :k], 0.15)))
        for k in (3, 10, 33)
    }
    assert max(areas, key=lambda k: areas[k]) == best_scores(points, 0.15)[1] == 10
