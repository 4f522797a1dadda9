"""Label errors: Northcutt et al. 2021, confident learning by the authors' library, on classifiers of ours."""

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ostiary.attacks.label_flip import LabelFlip
from ostiary.attacks.sig import Sig
from ostiary.core.card import Have
from ostiary.core.decide import exceeds
from ostiary.core.errors import NotMet
from ostiary.core.execute import execute
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8
from ostiary.screen import label_errors as module
from ostiary.screen.label_errors import LabelErrors, _one_way
from ostiary.screen.summary import suspects_of


def screened(data: ImageSet) -> SampleScores:
    return LabelErrors().screen(data, None, None, run=Run())


def accused(found: SampleScores) -> list[int]:
    return [row.label for row in found.per_class if exceeds(row, LabelErrors.card.limits)]


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return screened(lab.poisoned.data)


def area(lab: Any, found: SampleScores) -> float:
    return float(roc_auc_score(lab.is_poisoned, found.scores.numpy()))


def test_poison_leads_the_ranking_and_its_class_alone_is_accused(lab: Any, found: SampleScores) -> None:
    assert area(lab, found) >= 0.98 and accused(found) == [0]
    flagged = suspects_of(found, lab.poisoned.data, LabelErrors.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.85 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).mean() <= 0.01


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = screened(lab.part)
    assert accused(found) == [] and not suspects_of(found, lab.part, LabelErrors.card).any()
    assert found.suspected.mean() <= 0.03


def test_labels_wrong_at_random_are_ranked_first_and_accuse_no_class(lab: Any) -> None:
    made = LabelFlip(rate=0.1, to="random").poison(lab.part, run=Run(seed=0))
    wrong = np.isin(made.data.ids, list(made.truth.poisoned))
    found = screened(made.data)
    assert roc_auc_score(wrong, found.scores.numpy()) >= 0.98 and accused(found) == []
    assert found.suspected[wrong].mean() >= 0.85 and found.suspected[~wrong].mean() <= 0.03


def test_honest_mistakes_that_go_one_way_accuse_their_class_as_poison_does(lab: Any) -> None:
    """The blind spot: nothing tells them from poison."""
    labels = lab.part.labels.clone()
    labels[(labels == 7).nonzero().squeeze(1)[:50]] = 1
    assert accused(screened(ArraySet(load_uint8(lab.part), labels, lab.part.classes, lab.part.ids))) == [1]


def test_clean_label_poison_is_not_found(lab: Any) -> None:
    """The blind spot: its labels are right."""
    made = Sig(target=8, rate=0.09, delta=80 / 255).poison(lab.part, run=Run(seed=0))
    found = screened(made.data)
    assert roc_auc_score(np.isin(made.data.ids, list(made.truth.poisoned)), found.scores.numpy()) <= 0.6
    assert accused(found) == []


def test_mutant_whose_views_see_the_whole_picture_learns_the_patch(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCKS", 1)
    monkeypatch.setattr(module, "CELL", np.ones((8, 8)))
    found = screened(lab.poisoned.data)
    assert area(lab, found) < 0.97 and found.suspected[lab.is_poisoned].mean() < 0.7


def test_mutant_that_judges_samples_its_classifiers_saw_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cross-validation labels of mere noise are told: here from 60 pictures of 352 numbers each."""
    rng = np.random.default_rng(0)
    cells, given = rng.normal(size=(60, 11, 8, 8)).astype(np.float32), np.arange(60) % 2
    honest = LabelErrors()._chances(cells, given, Run())
    assert (honest.argmax(1) == given).mean() < 0.7

    class Seen(np.ndarray):
        """Folds none of which is held back."""

        def __ne__(self, other: object) -> Any:
            return np.ones(len(self), bool)

    monkeypatch.setattr(module, "_folds", lambda given, folds, rng: (np.arange(len(given)) % folds).view(Seen))
    assert (LabelErrors()._chances(cells, given, Run()).argmax(1) == given).mean() > 0.9


def pruned_by_noise_rate(given: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """The paper's method by noise rate, step by step: thresholds, confident joint, calibration, margins."""
    n, k = chances.shape
    limits = np.array([chances[given == label, label].mean() for label in range(k)])
    counts = np.zeros((k, k))
    for row in range(n):
        over = [label for label in range(k) if chances[row, label] >= limits[label]]
        if over:
            counts[given[row], max(over, key=lambda label: chances[row, label])] += 1
    sizes = np.bincount(given)
    joint = counts / counts.sum(1, keepdims=True) * sizes[:, None] / n
    found = np.zeros(n, bool)
    for own in range(k):
        for other in range(k):
            rows = np.flatnonzero(given == own)
            margin = chances[rows, other] - chances[rows, own]
            most = round(n * joint[own, other]) if own != other else 0
            found[rows[np.argsort(-margin, kind="stable")[:most]]] = True
    return found & (chances.argmax(1) != given)


def test_the_doubted_are_those_of_the_papers_equations(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = lab.part.labels.numpy().copy()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(given)) < 0.15
    chances = rng.dirichlet(np.full(10, 0.3), len(given)) * 0.6
    chances[np.arange(len(given)), given] += 0.4
    given[wrong] = (given[wrong] + 1) % 10
    data = ArraySet(load_uint8(lab.part), given, lab.part.classes, [f"{row:05d}" for row in range(len(given))])
    monkeypatch.setattr(LabelErrors, "_chances", lambda self, cells, given, run: chances)
    found = screened(data)
    assert found.scores.numpy() == pytest.approx(-np.log(chances[np.arange(len(given)), given]), rel=1e-5)
    exact = pruned_by_noise_rate(given, chances)
    # The library rounds the joint so that its rows add up; single samples on the border differ.
    assert exact.sum() > 100 and (found.suspected != exact).mean() <= 0.01


@pytest.mark.parametrize(
    ("inside", "claimed", "n", "accused"),
    [(40, 40, 100, False), (40, 5, 100, True), (12, 2, 1000, False), (3, 0, 12, False), (300, 120, 1000, True)],
)
def test_a_class_is_accused_by_what_goes_one_way_alone(inside: int, claimed: int, n: int, accused: bool) -> None:
    row = ClassScore(label=1, score=inside / n, measures={"n": n, "suspected": inside})
    judged = _one_way(row, np.array([0, claimed, *[0] * 8]), 0.4 * 0.1)
    assert judged.measures["excess"] == pytest.approx((inside - claimed) / n - 0.04) == judged.score
    assert exceeds(judged, LabelErrors.card.limits) == accused


def test_without_cleanlab_it_is_skipped_and_says_what_to_install(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    result = execute(LabelErrors(), lab.part, None, None, run=Run(), have=Have(training_data=True)).result
    assert result.status == "skipped" and result.reason == "needs cleanlab: pip install 'ostiary[labels]'"


def test_one_class_is_too_few(lab: Any) -> None:
    alone = lab.part.subset((lab.part.labels == 3).nonzero().squeeze(1))
    with pytest.raises(NotMet, match="two classes of at least 10"):
        screened(alone)
