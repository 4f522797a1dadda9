"""The steps of the data screeners against slow or hand-made references."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from ostiary.models.gaussian import Within
from ostiary.screen import classes
from ostiary.screen.activation_clustering import MAX_SILHOUETTE, ActivationClustering, _sample
from ostiary.screen.classes import _alike, reclassify
from ostiary.screen.parting import part_line, two_means
from ostiary.screen.scan import LIMIT
from ostiary.screen.spectral_signatures import _split
from ostiary.screen.traits import _far_rarer
from ostiary.screen.two_groups import Ruler, stand_out


def two_groups(n: int, share: float, d: int = 40, gap: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    odd = np.arange(n) < share * n
    features = rng.normal(size=(n, d))
    features[odd, :3] += gap
    order = rng.permutation(n)
    return features[order].astype(np.float32), odd[order]


def test_two_means_does_not_depend_on_the_order_and_is_no_worse_than_fifty_random_starts() -> None:
    points = np.random.default_rng(3).normal(size=(120, 8))  # no real groups: many cuts of nearly equal merit
    order = np.random.default_rng(4).permutation(len(points))
    found, again = two_means(points), two_means(points[order])
    assert again.inertia_ == pytest.approx(found.inertia_)
    same = (found.labels_[order] == again.labels_).mean()
    assert max(same, 1 - same) == 1.0
    assert found.inertia_ <= KMeans(2, n_init=50, random_state=0).fit(points).inertia_ * 1.02


@pytest.mark.parametrize("shape", [(200, 30), (20, 50)])
def test_spectral_scores_are_those_of_a_full_svd(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    features[: shape[0] // 4] += 2
    centred = features - features.mean(0)
    _, _, right = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    assert _split(features).scores == pytest.approx((centred @ right[0]) ** 2, rel=1e-3, abs=1e-3)


def test_the_cut_is_otsus() -> None:
    line = np.random.default_rng(2).normal(size=60)
    line[:20] += 5
    suspected, parting = part_line(line)
    inside = []
    for at in range(1, 60):
        low, high = np.sort(line)[:at], np.sort(line)[at:]
        inside.append(len(low) * low.var() + len(high) * high.var())
    assert parting == pytest.approx(1 - min(inside) / (60 * line.var()))
    at = int(np.argmin(inside)) + 1
    assert suspected.sum() == min(at, 60 - at)


def test_spectral_suspects_are_the_smaller_group() -> None:
    features, odd = two_groups(300, 0.2)
    assert np.array_equal(_split(features).suspected, odd)


def test_clustering_suspects_are_the_smaller_group_and_score_positive() -> None:
    features, odd = two_groups(300, 0.2)
    part = ActivationClustering()._split(features, 0)
    assert np.array_equal(part.suspected, odd)
    assert (part.scores[odd] > 0).all() and (part.scores[~odd] <= 0).all()


def test_the_silhouette_tells_two_groups_from_one() -> None:
    two, one = two_groups(300, 0.2)[0], two_groups(300, 0.2, gap=0.0)[0]
    method = ActivationClustering()
    assert method._split(two, 0).score > 0.35 > method._split(one, 0).score


def test_large_classes_are_sampled_with_both_groups() -> None:
    minority = np.zeros(3 * MAX_SILHOUETTE, bool)
    minority[[5, 4000]] = True
    rows = _sample(minority, 0)
    assert MAX_SILHOUETTE <= len(rows) <= MAX_SILHOUETTE + 10
    assert minority[rows].sum() == 2
    assert len(np.unique(rows)) == len(rows)


def test_reclassification_tells_a_group_of_its_label_from_one_that_belongs_elsewhere() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 60)
    looks = labels.copy()
    looks[:15] = 1  # labelled 0, looks like 1
    thumbnails = (rng.normal(size=(120, 12)) + 8 * looks[:, None]).astype(np.float32)
    foreign, own = np.zeros(120, bool), np.zeros(120, bool)
    foreign[:15] = True
    own[60:75] = True
    assert reclassify(thumbnails, labels, foreign)[0] == pytest.approx(0)
    assert reclassify(thumbnails, labels, own)[1] == pytest.approx(1, abs=0.05)


def test_a_part_of_a_large_set_votes_as_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 300)
    looks = labels.copy()
    looks[:40] = 1  # labelled 0, looks like 1
    thumbnails = (rng.normal(size=(600, 12)) + 8 * looks[:, None]).astype(np.float16)
    suspected = np.arange(600) < 40
    whole = reclassify(thumbnails, labels, suspected)
    monkeypatch.setattr(classes, "MAX_VOTERS", 100)
    assert reclassify(thumbnails, labels, suspected) == pytest.approx(whole, abs=0.05)


def test_samples_that_are_all_alike_are_left_unscored() -> None:
    assert _alike(np.full((20, 4), 3.0, np.float32))
    assert _alike(np.full((20, 4), 3.0, np.float32) + np.float32(1e-6) * np.arange(20, dtype=np.float32)[:, None])
    assert not _alike(two_groups(40, 0.2)[0])


RULER = Within(np.zeros((6, 2)), np.eye(2))
J, MARGINS = np.array([1.0, 1.2, 0.8, 1.1, 0.9, 30.0]), np.array([[2.0, 2.0]] * 6)


def test_a_classs_size_does_not_count() -> None:
    """Thirty times the samples and thirty times the gain of the others is what natural kinds give."""
    placed = Ruler(RULER, placed=True, measured=True)
    assert stand_out(J, np.array([100] * 6), MARGINS, placed)[5] > LIMIT
    assert stand_out(J, np.array([100] * 5 + [3000]), MARGINS, placed)[5] < 1


@pytest.mark.parametrize("placed", [False, True])
def test_alone_a_group_that_the_model_is_unsure_of_is_no_triggers(placed: bool) -> None:
    unsure = MARGINS.copy()
    unsure[5] = 1.0, 3.0
    found = stand_out(J, np.array([100] * 6), unsure, Ruler(RULER, placed=placed, measured=placed))
    assert found[5] > LIMIT if placed else np.isnan(found[5])
    assert not np.isnan(found[:5]).any()


def test_three_classes_have_no_middle() -> None:
    assert np.isnan(stand_out(J[:3], np.ones(3), MARGINS[:3], Ruler(RULER, placed=True, measured=True))).all()


@pytest.mark.parametrize(
    ("hits", "n", "share", "rarer"), [(0, 50, 0.5, True), (20, 50, 0.5, False), (0, 5, 0.5, False)]
)
def test_an_odd_group_must_be_far_rarer_among_enough_trusted_samples(
    hits: int, n: int, share: float, rarer: bool
) -> None:
    assert _far_rarer(hits, n, share) == rarer
