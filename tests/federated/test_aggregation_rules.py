"""Each rule against numbers worked out by hand from its paper, and mutants of each that give others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from federated_case import aggregate, codes, context

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run
from ostiary.federated import deepsight, flame, fldetector, fltrust, guard, norm_clip
from ostiary.federated.deepsight import DeepSight, answer_ratios, apart, energies, exceedings
from ostiary.federated.flame import Flame, FlameUpdates
from ostiary.federated.fldetector import FLDetector, hessian_times, higher_group, within
from ostiary.federated.fltrust import FLTrust
from ostiary.federated.foolsgold import FoolsGold, foolsgold_weights
from ostiary.federated.geometry import clip_factors, cosines, gram, norms, times, weighted
from ostiary.federated.guard import Guard, middle
from ostiary.federated.mixing import Bucketing, NearestNeighbourMixing, buckets, neighbours
from ostiary.federated.norm_clip import NormClip
from ostiary.federated.rfa import RFA
from ostiary.federated.rlr import RobustLearningRate
from ostiary.federated.verdict import Aggregated, Head


def test_sums_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from ostiary.federated import geometry

    u = np.random.default_rng(0).normal(size=(4, 10))
    v, w = u[0] + 1, np.array([0.1, 0.2, 0.3, 0.4])
    whole = gram(u), times(u, v), norms(u), weighted(u, w)
    monkeypatch.setattr(geometry, "BLOCK", 3)
    for one, other, by_hand in zip(
        whole,
        (gram(u), times(u, v), norms(u), weighted(u, w)),
        (u @ u.T, u @ v, (u**2).sum(1) ** 0.5, w @ u),
        strict=True,
    ):
        np.testing.assert_allclose(one, by_hand, rtol=1e-12)
        np.testing.assert_allclose(other, by_hand, rtol=1e-12)


def test_short_updates_beside_long_weights_keep_their_distances_in_float64() -> None:
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(3, 50_000)) * 1e-5
    products = gram(updates.astype(np.float32))
    squared = products[0, 0] + products[1, 1] - 2 * products[0, 1]
    assert squared == pytest.approx(((updates[0] - updates[1]) ** 2).sum(), rel=1e-5)


# RFA

SQUARE = [[0, 0], [4, 4], [4, 0], [0, 2]]
"""Corners of a convex quadrilateral: their geometric median is where the diagonals meet, (4/3, 4/3)."""


def test_rfa_is_the_geometric_median() -> None:
    found = aggregate(RFA(steps=300), SQUARE)
    np.testing.assert_allclose(found.update, [4 / 3, 4 / 3], atol=1e-4)
    np.testing.assert_allclose(found.scores, np.linalg.norm(np.array(SQUARE) - 4 / 3, axis=1), atol=1e-3)
    assert found.weights.sum() == pytest.approx(1)


def test_rfa_takes_one_step_as_alg_2_has_it() -> None:
    found = aggregate(RFA(steps=1), [[0], [0], [9]])  # mean 3, distances 3, 3, 6, weights 2/5, 2/5, 1/5
    np.testing.assert_allclose(found.weights, [0.4, 0.4, 0.2])
    np.testing.assert_allclose(found.update, [1.8])


def test_rfa_follows_the_shares() -> None:
    found = aggregate(RFA(steps=200), [[0], [1], [9]], shares=np.array([0.2, 0.2, 0.6]))
    np.testing.assert_allclose(found.update, [9], atol=1e-3)


def test_mutant_a_mean_for_a_median_fails() -> None:
    found = aggregate(RFA(steps=300, nu=1e6), SQUARE)
    assert np.abs(found.update - 4 / 3).max() > 0.1


def test_a_far_client_counts_little_and_is_told_so() -> None:
    assert codes(aggregate(RFA(), [[0, 0], [1, 0], [0, 1], [90, 90]])) == ["", "", "", "OS522"]
    assert codes(aggregate(RFA(), [[0, 0], [1, 0], [0, 1], [1, 1]])) == [""] * 4


# Norm clipping

LENGTHS = [[3, 4], [0, 1], [1, 0]]


def test_norm_clip_makes_long_updates_short() -> None:
    found = aggregate(NormClip(), LENGTHS)  # 5, 1, 1: the median is 1
    np.testing.assert_allclose(found.update, [1.6 / 3, 1.8 / 3])
    assert codes(found) == ["OS521", "", ""]
    np.testing.assert_allclose(aggregate(NormClip(bound=2.5), LENGTHS).update, [2.5 / 3, 3 / 3])
    assert codes(aggregate(NormClip(bound=5.0), LENGTHS)) == ["", "", ""]


def test_mutant_without_clipping_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_clip, "clip_factors", lambda lengths, bound: np.ones_like(lengths))
    assert np.abs(aggregate(NormClip(), LENGTHS).update - [1.6 / 3, 1.8 / 3]).max() > 0.5


def test_noise_is_as_large_as_asked_and_its_own_each_round() -> None:
    still = np.zeros((3, 20_000))
    still[:, 0] = 2.0
    one = aggregate(NormClip(noise=0.1), still).update[1:]
    assert one.std() == pytest.approx(0.2, rel=0.03)
    assert (aggregate(NormClip(noise=0.1), still).update[1:] == one).all()
    assert (aggregate(NormClip(noise=0.1), still, round=2).update[1:] != one).all()
    assert (aggregate(NormClip(noise=0.1), still, Run(seed=1)).update[1:] != one).all()


# FLTrust

TRUSTED = [[1, 1], [-1, 0], [0, 3], [4, 0]]


def test_fltrust_is_eq_4() -> None:
    found = aggregate(FLTrust(), TRUSTED, root=lambda: np.array([2.0, 0.0]))
    cosine = 0.5**0.5
    np.testing.assert_allclose(found.update, np.array([cosine * 2**0.5 + 2, 1.0]) / (1 + cosine))
    np.testing.assert_allclose(found.weights, np.array([cosine, 0, 0, 1]) / (1 + cosine))
    assert codes(found) == ["", "OS523", "OS523", ""]
    np.testing.assert_allclose(found.scores, [1 - cosine, 2, 1, 0])


def test_mutant_without_the_server_s_length_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fltrust, "norms", lambda updates: np.full(len(updates), 2.0))
    found = aggregate(FLTrust(), TRUSTED, root=lambda: np.array([2.0, 0.0]))
    assert np.abs(found.update - np.array([3, 1]) / (1 + 0.5**0.5)).max() > 0.5


def test_fltrust_does_not_trust_what_is_too_short_to_be_measured() -> None:
    """Its squares are 0 in float64, but not its products with the server's own: it would count for everything."""
    found = aggregate(FLTrust(), [[1, 1], [1e-170, 0]], root=lambda: np.array([2.0, 0.0]))
    assert codes(found) == ["", "OS523"]
    np.testing.assert_allclose(found.update, [2**0.5, 2**0.5])


def test_fltrust_needs_an_update_of_its_own() -> None:
    with pytest.raises(NotMet, match="server's own") as caught:
        aggregate(FLTrust(), TRUSTED)
    assert "trusted" in str(caught.value.hint)
    for bad in (np.array([np.nan, 0]), np.zeros(3)):
        with pytest.raises(ModelError, match="own update"):
            aggregate(FLTrust(), TRUSTED, root=lambda bad=bad: bad)


def test_when_all_go_the_other_way_the_model_stays() -> None:
    run = Run()
    found = aggregate(FLTrust(), TRUSTED, run, root=lambda: np.array([-1.0, -9.0]))
    assert found.accepted.tolist() == [False, True, False, False]
    found = aggregate(FLTrust(), [[1, 1], [0, 3]], run, root=lambda: np.array([-1.0, -9.0]))
    assert not found.accepted.any() and not found.update.any()
    assert [caution.code for caution in run.cautions] == ["OS928"]


# FLAME

ROUND = [[0.1, 1.0], [0.0, 1.1], [-0.1, 0.9], [0.1, -3.0], [-0.1, -3.0]]


@pytest.mark.parametrize("rule", [Flame, FlameUpdates])
def test_flame_averages_the_majority_clipped_to_the_median_of_all(rule: Any) -> None:
    found = aggregate(rule(noise=0), ROUND, weights=np.array([0.1, 0.0]))
    assert found.accepted.tolist() == [True, True, True, False, False]
    # Lengths 1.005, 1.1, 0.906, 3, 3: the median of all is 1.1, so that none of the accepted is clipped.
    np.testing.assert_allclose(found.update, [0, 1], atol=1e-12)
    assert codes(found) == ["", "", "", "OS524", "OS524"]
    assert found.scores[3:].min() > 5 * found.scores[:3].max()


def test_mutant_with_the_median_of_the_accepted_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flame, "clip_factors", lambda lengths, bound: clip_factors(lengths, np.median(lengths[:3])))
    assert aggregate(FlameUpdates(noise=0), ROUND).update[1] < 0.98


def test_mutant_that_clusters_rows_of_cosines_as_points_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the most copied code: it accepts others than the distances do."""
    rng = np.random.default_rng(14)
    updates = rng.normal(size=(11, 4))
    right = aggregate(FlameUpdates(noise=0), updates).accepted

    def of_rows(distances: np.ndarray, **how: Any) -> np.ndarray:
        rows = 1 - distances
        return real(np.linalg.norm(rows[:, None] - rows[None], axis=2), **how)

    real = flame.clusters
    monkeypatch.setattr(flame, "clusters", of_rows)
    assert (aggregate(FlameUpdates(noise=0), updates).accepted != right).any()


def test_flame_on_weights_and_on_updates_are_two_defences() -> None:
    # Beside a long global model (0, 100) the models part by the first number alone, the updates by their signs.
    updates = [[0.01, 1], [0.02, 1], [0.015, 1], [0.01, -1], [0.02, -1], [0.5, 1], [-0.5, 1]]
    on_models = aggregate(Flame(noise=0), updates, weights=np.array([0.0, 100.0])).accepted
    on_updates = aggregate(FlameUpdates(noise=0), updates, weights=np.array([0.0, 100.0])).accepted
    assert on_models[3:5].all() and not on_models[5:].any()
    assert on_updates[:3].all() and not on_updates[3:5].any()


def test_flame_abstains_where_everybody_is_in_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """An average of nobody would be NaN."""
    monkeypatch.setattr(flame, "clusters", lambda distances, **how: np.full(len(distances), -1))
    run = Run()
    found = aggregate(FlameUpdates(), [[1, 0], [1, 0.01], [-1, 0], [-1, 0.01]], run)
    assert not found.accepted.any() and not found.update.any() and codes(found) == ["OS524"] * 4
    assert [caution.code for caution in run.cautions] == ["OS928"]


def test_flame_needs_three_clients() -> None:
    with pytest.raises(NotMet, match="needs 3 clients in a round, there are 2"):
        aggregate(Flame(), [[1], [2]])


# Robust learning rate

SIGNS = [[1, 1], [1, 1], [1, 1], [1, -1], [1, -1]]


def test_rlr_turns_steps_round_where_signs_disagree() -> None:
    found = aggregate(RobustLearningRate(agreement=0.4), SIGNS)  # |sums| 5 and 1, threshold 2
    np.testing.assert_allclose(found.update, [1, -0.2])
    np.testing.assert_allclose(found.scores, [0, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(aggregate(RobustLearningRate(agreement=0.2), SIGNS).update, [1, 0.2])


def test_mutant_with_a_threshold_of_nothing_fails() -> None:
    assert aggregate(RobustLearningRate(agreement=1e-9), SIGNS).update[1] > 0


def test_rlr_clips_first() -> None:
    found = aggregate(RobustLearningRate(), [[1, 0], [1, 0], [1000, 0]])
    np.testing.assert_allclose(found.update, [1, 0])
    assert codes(found) == ["", "", "OS521"]


# FoolsGold


def test_foolsgold_weights_by_hand() -> None:
    angles = np.deg2rad([0, 60, 150])
    cosine = np.cos(angles[:, None] - angles[None, :])
    # Greatest cosines 1/2, 1/2, 0; alpha 1/2, 1/2, 1 -> 0.99; logit + 1/2: 1/2, 1/2, above 1.
    np.testing.assert_allclose(foolsgold_weights(cosine, 1.0), [0.5, 0.5, 1.0], atol=1e-9)
    np.testing.assert_allclose(foolsgold_weights(cosine, 0.5), [0.25, 0.25, 1.0], atol=1e-9)


def test_foolsgold_refuses_twins_and_pardons_who_resembles_them_by_chance() -> None:
    angles = np.deg2rad([0, 0, 60])
    cosine = np.cos(angles[:, None] - angles[None, :])
    # The third client's greatest cosine, 1/2, is half of the twins': its cosines are halved to 1/4.
    alpha = 0.75 / 0.75
    assert foolsgold_weights(cosine, 1.0).tolist() == [0, 0, alpha]


def test_foolsgold_remembers_and_looks_at_the_last_layer() -> None:
    memory: dict[str, Any] = {}
    rule, head = FoolsGold(), Head(slice(0, 2), slice(2, 2))
    first, second = [[1, 1, 9], [1, -1, 9], [-1, 0, 9]], [[1, -1, 9], [1, 1, 9], [-1, 0, 9]]
    aggregate(rule, first, memory=memory, head=head)
    found = aggregate(rule, second, memory=memory, head=head, round=2)
    assert codes(found) == ["OS525", "OS525", ""]
    assert aggregate(rule, second, memory={}, head=head, round=2).accepted.all(), "mutant without memory"
    mutant = aggregate(rule, second, memory={}, round=2)
    assert mutant.weights[2] < 0.34 < found.weights[2], "mutant that looks at all layers"


def test_foolsgold_of_alike_clients_keeps_the_model() -> None:
    run = Run()
    assert not aggregate(FoolsGold(), [[1, 0], [1, 0]], run).update.any()
    assert [caution.code for caution in run.cautions] == ["OS928"]


# FLDetector


def test_the_hessian_is_learnt_from_conjugate_steps() -> None:
    steps, changes = np.array([[1.0, 0], [0, 1.0]]), np.array([[2.0, 0], [0, 1.0]])
    np.testing.assert_allclose(hessian_times(steps, changes, np.array([3.0, 4.0])), [6, 4])
    mutant = hessian_times(changes, steps, np.array([3.0, 4.0]))
    assert np.abs(mutant - [6, 4]).max() > 1
    assert not hessian_times(np.zeros((1, 2)), np.ones((1, 2)), np.ones(2)).any()


def test_the_last_step_gives_the_last_change() -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 6))
    hessian = half @ half.T
    steps = rng.normal(size=(4, 6))
    np.testing.assert_allclose(hessian_times(steps, steps @ hessian, steps[-1]), hessian @ steps[-1], rtol=1e-6)


def test_two_groups_on_a_line() -> None:
    assert within(np.array([0.0, 0.0, 1.0, 1.0])) == (pytest.approx(1.0), pytest.approx(0.0), 2)
    rng = np.random.default_rng
    scores = np.array([0.1, 0.11, 0.5, 0.09, 0.12, 0.52, 0.1, 0.1])
    assert np.flatnonzero(higher_group(scores, rng(0))).tolist() == [2, 5]
    assert not higher_group(np.full(8, 0.1), rng(0)).any()
    assert not higher_group(rng(1).uniform(size=30), rng(0)).any()


def detected(rule: FLDetector, attack: bool, rounds: int = 8) -> tuple[Aggregated, Run]:
    """Ten clients on quadratic losses with one Hessian; the last two swing to and fro if they attack.

    No step of this size settles, so that there is something to foretell in every round.
    """
    rng, memory, run = np.random.default_rng(5), {}, Run()
    hessian, weights, own = np.diag([2.0, 1.0, 0.5]), np.ones(3), rng.normal(size=(10, 3)) * 0.3
    for number in range(1, rounds + 1):
        updates = -0.9 * ((weights - own) @ hessian)
        if attack:
            updates[8:] += (-1) ** number
        found = rule.aggregate(updates, context(updates, weights=weights, memory=memory, round=number), run=run)
        weights = weights + found.update
    return found, run


def test_fldetector_refuses_whose_updates_do_not_follow() -> None:
    found, run = detected(FLDetector(window=4), attack=True)
    assert codes(found) == [""] * 8 + ["OS526"] * 2
    assert found.scores[8:].min() > 3 * found.scores[:8].max()
    assert {caution.code for caution in run.cautions} == {"OS930"}
    assert detected(FLDetector(window=4), attack=False)[0].accepted.all()


def test_fldetector_foretells_no_update_from_one_that_is_older_than_the_last_round() -> None:
    """Two halves take turns: what a client sent two rounds ago does not follow from the model's last step."""
    rule, memory, run = FLDetector(window=2), dict[str, Any](), Run()
    rng, weights = np.random.default_rng(0), np.ones(3)
    for number in range(1, 9):
        updates = rng.normal(size=(4, 3)) - weights
        names = tuple("abcd" if number % 2 else "efgh")
        given = replace(context(updates, weights=weights, memory=memory, round=number), clients=names)
        found = rule.aggregate(updates, given, run=run)
        weights = weights + found.update
        assert np.isnan(found.scores).all() and found.accepted.all()
    assert {caution.code for caution in run.cautions} == {"OS930"}


def test_fldetector_judges_nobody_before_its_window_is_full() -> None:
    found, _ = detected(FLDetector(window=4), attack=True, rounds=5)
    assert found.accepted.all() and np.isnan(found.scores).all()


def test_mutant_that_foretells_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Hessian honest clients do not follow either: their errors are no longer next to nothing."""
    right = detected(FLDetector(window=4), attack=True)[0].scores
    monkeypatch.setattr(fldetector, "hessian_times", lambda steps, changes, vector: np.zeros_like(vector))
    wrong = detected(FLDetector(window=4), attack=True)[0].scores
    assert wrong[:8].mean() > 2 * right[:8].mean()


# DeepSight

HEAD = Head(slice(0, 6), slice(6, 9))
"""Three classes, two features."""


def test_energies_and_exceedings_by_hand() -> None:
    update = np.array([[1, -1, 0, 0.5, 0, 0, 1, 0.5, 0.0]])
    np.testing.assert_allclose(energies(update, HEAD), [[0.9, 0.1, 0.0]])  # (1 + 2)^2, (0.5 + 0.5)^2, 0
    # Thirds of the greatest of 0.9: 0.3 is the threshold.
    assert exceedings(np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3]])).tolist() == [1, 3]


def test_above_a_hundred_classes_the_threshold_is_a_hundredth() -> None:
    energy = np.full((1, 200), 0.007)
    energy[0, 0] = 1.0
    assert exceedings(energy).tolist() == [1]


def test_rows_in_no_cluster_are_alone() -> None:
    assert apart(np.array([0, 0, -1, -1])).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]


def test_answers_to_noise_are_ratios_to_the_global_model() -> None:
    def probe(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return np.tile(np.array([weights[0], 1 - weights[0]]), (len(inputs), 1))

    found = answer_ratios(np.array([[0.25]]), np.array([0.5]), probe, np.zeros((3, 1)))
    np.testing.assert_allclose(found, [[1.5, 0.5]])


def sighted(**params: Any) -> Aggregated:
    """Four clients that train on all labels, two towards class 0 alone."""
    rng = np.random.default_rng(0)
    honest = np.concatenate([rng.choice([-1.0, 1.0], (4, 6)) + rng.normal(size=(4, 6)) * 0.1, np.eye(4, 3) + 1], axis=1)
    bad = np.tile([2.0, 2, 0, 0, 0, 0, 3, -0.1, -0.1], (2, 1)) + rng.normal(size=(2, 9)) * 0.01

    def probe(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        logits = inputs @ weights[:6].reshape(3, 2).T + weights[6:]
        found = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(found / found.sum(1, keepdims=True))

    updates = np.concatenate([honest, bad])
    return aggregate(DeepSight(samples=50, **params), updates, head=HEAD, probe=probe, input_shape=(2,))


def test_deepsight_refuses_the_cluster_of_few_labels() -> None:
    found = sighted()
    assert codes(found)[4:] == ["OS527"] * 2
    assert found.accepted[:4].all()


def test_mutant_with_every_exceeding_alike_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepsight, "exceedings", lambda energy: np.full(len(energy), 3))
    assert sighted().accepted.all()


def test_deepsight_needs_head_and_probe() -> None:
    with pytest.raises(NotMet, match="last layer"):
        aggregate(DeepSight(), np.zeros((4, 9)))


# Mixing


def test_nearest_neighbours_by_hand() -> None:
    points = np.array([[0.0], [1.0], [10.0]])
    np.testing.assert_allclose(neighbours(gram(points), 2) @ points, [[0.5], [0.5], [5.5]])
    mutant = neighbours(-gram(points), 2) @ points
    assert np.abs(mutant - [[0.5], [0.5], [5.5]]).max() > 1


def test_buckets_hold_each_client_once() -> None:
    made = buckets(5, 2, np.random.default_rng(0))
    assert made.shape == (3, 5) and ((made > 0).sum(0) == 1).all()
    np.testing.assert_allclose(made.sum(1), 1)
    assert sorted((made > 0).sum(1).tolist()) == [1, 2, 2]
    assert (buckets(5, 2, np.random.default_rng(1)) != made).any()


def test_mixing_tells_clients_what_became_of_their_mixtures() -> None:
    updates = [[0.0], [1.0], [0.5], [0.2], [30.0]]
    found = aggregate(NearestNeighbourMixing(declared=0.4), updates)
    assert found.weights.sum() == pytest.approx(1)
    assert found.update == pytest.approx(found.weights @ np.array(updates)), "RFA on mixtures is a mixture"
    assert found.update < 1 < aggregate(RFA(steps=1), updates).update
    whole = aggregate(Bucketing(size=1), updates)
    np.testing.assert_allclose(whole.update, aggregate(RFA(), updates).update)


def test_a_client_of_refused_mixtures_alone_is_refused() -> None:
    updates = [[0.1, 1], [0, 1.1], [-0.1, 0.9], [0.1, 1.0], [0.1, -3], [-0.1, -3]]
    found = aggregate(NearestNeighbourMixing(inner="aggregate.flame-updates", declared=0.49), updates)
    assert codes(found) == ["", "", "", "", "OS528", "OS528"]


def test_cosines_of_a_still_client_are_nought() -> None:
    np.testing.assert_allclose(cosines(gram(np.array([[0.0, 0], [1, 0]]))), np.eye(2))


# The guard

VOTES = [[9, 0], [0, 1], [1, 0], [0, 3], [0.5, 0.5]]
"""Lengths 9, 1, 1, 3, 0.71: the median is 1, so that the first and the fourth are made as long as that."""


def guarded(updates: Any, longest: float = 9.0, **more: Any) -> Aggregated:
    """The guard without its gain."""
    root = more.pop("root", None)
    return aggregate(Guard(gain=more.pop("gain", 1.0), longest=longest, **more), updates, root=root)


def test_the_guard_averages_the_middle_of_clipped_updates() -> None:
    # Clipped: (1, 0), (0, 1), (1, 0), (0, 1), (1/2, 1/2); of each number one value is cut at either end.
    found = guarded(VOTES)
    np.testing.assert_allclose(found.update, [0.5, 0.5])
    np.testing.assert_allclose(guarded(VOTES, gain=3.0).update, [1.5, 1.5])
    assert codes(found) == ["OS521", "", "", "OS521", ""] and found.accepted.all()
    assert found.weights.sum() == pytest.approx(1) and found.weights[4] == pytest.approx(2 / 6)


def test_the_guard_adds_the_server_s_own_update_no_longer_than_the_others() -> None:
    found = guarded(VOTES, trusted=0.5, root=lambda: np.array([30.0, 40.0]))
    np.testing.assert_allclose(found.update, [0.5 + 0.3, 0.5 + 0.4])
    short = guarded(VOTES, trusted=0.5, root=lambda: np.array([0.3, 0.4]))
    np.testing.assert_allclose(short.update, [0.65, 0.7])


def test_the_guard_steps_no_further_than_a_part_of_the_median() -> None:
    np.testing.assert_allclose(guarded(VOTES, longest=0.5).update, np.full(2, 0.125**0.5))
    assert np.linalg.norm(guarded(VOTES).update) > 0.7, "mutant without that bound"


def test_mutants_of_the_guard_without_clipping_or_cutting_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pull = [[1.0, 0]] * 7 + [[0, 1.0]] * 3
    np.testing.assert_allclose(guarded(pull).update, [1, 0], atol=1e-12)
    assert guarded(pull, trim=0.1).update[1] > 0.1, "cuts fewer than attack"
    long = [[2.0, 0], [0, 1], [2, 0], [0, 1], [2, 0], [0, 1], [0, 1]]
    right = guarded(long).update
    monkeypatch.setattr(guard, "clip_factors", lambda lengths, bound: np.ones_like(lengths))
    assert guarded(long).update[0] > 1.5 * right[0], "long ones win"


@pytest.mark.parametrize(("n", "cut"), [(5, 1), (8, 2), (9, 3)])
def test_of_equal_values_each_counts_for_its_share(n: int, cut: int) -> None:
    values = np.random.default_rng(n).integers(0, 3, (n, 200)).astype(float)
    mean, count = middle(values, cut)
    by_hand = np.zeros(n)
    for column in values.T:
        inner = np.sort(column)[cut : n - cut]
        by_hand += [(inner == value).sum() / (column == value).sum() for value in column]
    np.testing.assert_allclose(count, by_hand)
    np.testing.assert_allclose(mean, np.sort(values, 0)[cut : n - cut].mean(0))


def test_the_guard_needs_four_clients() -> None:
    with pytest.raises(NotMet, match="needs 4 clients"):
        aggregate(Guard(), VOTES[:3])


# All of them


def test_a_verdict_must_fit_together() -> None:
    from ostiary.federated.verdict import Reason, verdict

    reason = {0: Reason("OS524", "")}
    assert verdict(np.ones(2), np.ones(2) / 2, np.zeros(2), reason).weights.tolist() == [0, 0.5]
    for broken in (
        lambda: verdict(np.array([np.nan]), np.ones(1), np.zeros(1)),
        lambda: verdict(np.ones(1), np.ones(2), np.zeros(1)),
        lambda: Aggregated(np.ones(1), np.ones(1), np.array([False]), np.zeros(1), (Reason("OS524", ""),)),
    ):
        with pytest.raises(ModelError):
            broken()
