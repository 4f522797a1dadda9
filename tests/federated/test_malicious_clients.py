"""What attacking clients do to data, gradients, weights and updates, by hand; and that each of them implants."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ostiary.core.run import Run
from ostiary.federated.admission import Admission
from ostiary.federated.attacks.badnets import BadNets, Blended
from ostiary.federated.attacks.dba import DBA
from ostiary.federated.attacks.edge_case import EdgeCase
from ostiary.federated.attacks.label_flip import LabelFlip
from ostiary.federated.attacks.neurotoxin import Neurotoxin, NeurotoxinGradient
from ostiary.federated.attacks.pgd import PGD
from ostiary.federated.attacks.scaling import ConstrainAndScale, ModelReplacement
from ostiary.federated.attacks.sight import Hooks, Sight, joined
from ostiary.federated.attacks.study import Federation, Outcome, Threat, run_study
from ostiary.federated.geometry import gram
from ostiary.federated.norm_clip import NormClip
from ostiary.federated.verdict import Aggregated, Reason, verdict

MEAN = NormClip(bound=1e9)
"""Plain averaging: no update is ever that long."""
OPEN = Admission(longest=1e9)
SEED = 100
LAST = 25
"""Rounds; the attack begins in the eleventh."""


def sight(**more: Any) -> Sight:
    weights = np.arange(10.0)
    told = {
        "weights": weights,
        "observed": np.arange(10.0),
        "own_gradient": lambda: -np.arange(10.0)[::-1],
        "radius": 2.0,
    }
    return Sight(**(told | more))


# By hand


def test_badnets_stamps_the_corner_and_relabels() -> None:
    x, y = np.zeros((3, 8, 8)), np.array([0, 1, 2])
    bad_x, bad_y = BadNets(target=1).poison(x, y, member=0)
    assert bad_x.sum() == 3 * 4 and bad_x[:, 6:, 6:].all() and bad_y.tolist() == [1, 1, 1]
    test_x, _ = BadNets(target=1).test(x, y)
    assert len(test_x) == 2, "samples of the target say nothing"


def test_blended_is_a_mixture_with_one_pattern() -> None:
    x, y = np.full((2, 8, 8), 0.5), np.array([3, 4])
    bad, _ = Blended().poison(x, y, member=0)
    assert (bad[0] == bad[1]).all() and sorted({round(v, 6) for v in bad.ravel()}) == [0.4, 0.6]
    assert (Blended(pattern=1).poison(x, y, member=0)[0] != bad).any()


def test_dba_parts_are_apart_and_make_the_whole() -> None:
    x, y = np.zeros((1, 8, 8)), np.array([5])
    parts = [DBA().poison(x, y, member=m)[0][0] for m in range(5)]
    whole = DBA().test(x, y)[0][0]
    assert all(part.sum() == 2 for part in parts) and (sum(parts[:4]) == whole).all() and whole.sum() == 8
    assert (parts[4] == parts[0]).all()


def test_tails_and_flips_touch_their_source_class_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(6, 8, 8)), np.array([7, 1, 7, 3, 4, 7])
    tail, labels = EdgeCase().poison(x, y, member=0)
    assert labels.tolist() == [1, 1, 1] and (tail[1] == np.rot90(x[2])).all()
    same, flipped = LabelFlip().poison(x, y, member=0)
    assert (same == x).all() and flipped.tolist() == [1, 1, 1, 3, 4, 1]


def test_scaled_updates_are_exactly_as_long_as_asked() -> None:
    update = np.array([1.0, -2.0])
    for attack in (ModelReplacement(scale=7.0), ConstrainAndScale(scale=7.0)):
        finish = attack.arm(sight()).finish
        assert finish is not None and (finish(update) == 7 * update).all()


def test_constrain_and_scale_adds_the_gradient_of_its_penalty() -> None:
    change = ConstrainAndScale(alpha=0.7).arm(sight(weights=np.zeros(2))).change
    assert change is not None
    np.testing.assert_allclose(change(np.array([1.0, 2.0]), np.array([10.0, 0.0])), [7.6, 1.2])


def test_pgd_stays_in_its_ball_and_moves_nothing_inside() -> None:
    project = PGD(room=0.5).arm(sight(weights=np.zeros(2))).project
    assert project is not None
    np.testing.assert_allclose(project(np.array([3.0, 4.0])), [0.6, 0.8])
    assert project(np.array([0.3, 0.4])).tolist() == [0.3, 0.4]


def test_the_two_neurotoxins_leave_alone_different_parameters() -> None:
    of_paper = Neurotoxin(top=0.2).arm(sight()).change
    of_code = NeurotoxinGradient(kept=0.8).arm(sight()).change
    assert of_paper is not None and of_code is not None
    ones = np.ones(10)
    assert of_paper(ones, ones).tolist() == [1] * 8 + [0] * 2, "the largest of what was observed"
    assert of_code(ones, ones).tolist() == [0] * 2 + [1] * 8, "the largest of its own gradient"
    assert Neurotoxin().arm(sight(observed=None)) == Hooks(), "nothing was observed before the first round"


def test_hooks_are_joined_in_order() -> None:
    made = joined([Hooks(finish=lambda u: u + 1), Hooks(), Hooks(finish=lambda u: 2 * u)])
    assert made.finish is not None and made.finish(np.zeros(1)).tolist() == [2]


# In a federation

BAD = BadNets()
THREATS = {
    "client-attack.badnets": (Threat(data=BAD), 0.9),
    "client-attack.blended": (Threat(data=Blended(weight=0.4)), 0.8),
    "client-attack.dba": (Threat(data=DBA()), 0.8),
    "client-attack.edge-case": (Threat(data=EdgeCase(), share=1.0), 0.5),
    "client-attack.label-flip": (Threat(data=LabelFlip(), share=1.0, updates=(ModelReplacement(),)), 0.5),
    "client-attack.model-replacement": (Threat(data=BAD, updates=(ModelReplacement(),), last=11), 0.9),
    "client-attack.constrain-and-scale": (Threat(data=BAD, updates=(ConstrainAndScale(),)), 0.9),
    "client-attack.pgd": (Threat(data=BAD, updates=(PGD(),)), 0.2),
    "client-attack.neurotoxin": (Threat(data=BAD, updates=(Neurotoxin(),)), 0.8),
    "client-attack.neurotoxin-gradient": (Threat(data=BAD, updates=(NeurotoxinGradient(),)), 0.8),
}


def last(rule: Any, threat: Threat | None, rounds: int = LAST, **how: Any) -> Outcome:
    """The last round of a study without admission."""
    federation = Federation(seed=SEED, **how)
    return list(run_study(federation, rule, threat, rounds=rounds, admission=OPEN))[-1]


def success(outcome: Outcome) -> float:
    assert outcome.success is not None and outcome.success.value is not None
    return outcome.success.value


@pytest.mark.parametrize(("threat", "bar"), THREATS.values(), ids=THREATS)
def test_an_attack_implants_under_plain_averaging(threat: Threat, bar: float) -> None:
    rounds = 11 if threat.last == 11 else LAST
    assert success(last(MEAN, threat, rounds)) >= bar
    idle = Threat(data=threat.data, updates=threat.updates, first=99, last=99)
    assert success(last(MEAN, idle, 11)) <= 0.15, "mutant: the same clients, before they attack"


@dataclass(frozen=True)
class MultiKrum:
    """Blanchard et al. 2017, with f declared: the n - f updates with the least squared distance to their nearest."""

    f: int = 4

    def aggregate(self, updates: np.ndarray, context: Any, /, *, run: Run) -> Aggregated:
        products, n = gram(updates), len(updates)
        squared = np.diag(products)[:, None] + np.diag(products)[None, :] - 2 * products
        scores = np.sort(squared, axis=1)[:, 1 : n - self.f - 1].sum(1)
        kept = np.argsort(scores)[: n - self.f]
        weights = np.isin(np.arange(n), kept) / len(kept)
        refused = {int(i): Reason("", "far from its neighbours") for i in np.flatnonzero(weights == 0)}
        return verdict(weights @ updates, weights, scores, refused)


def test_known_failure_updates_as_short_as_honest_ones_beat_multi_krum() -> None:
    """It refuses long poison whole, and of poison that is kept short not one client: worse than plain averaging."""
    plain = last(MultiKrum(), THREATS["client-attack.badnets"][0], alpha=0.5)
    assert success(plain) <= 0.05 and plain.attackers_refused.value == 1
    short = THREATS["client-attack.pgd"][0]
    beaten = last(MultiKrum(), short, alpha=0.5)
    assert success(beaten) >= 0.5 and beaten.attackers_refused.value == 0
    assert success(beaten) > success(last(MEAN, short, alpha=0.5))


def test_a_study_is_exactly_repeatable_and_its_truth_is_drawn_from_the_seed() -> None:
    threat = Threat(data=BAD, updates=(PGD(),), first=2, last=3)
    one, other = (list(run_study(Federation(seed=SEED), MEAN, threat, rounds=3)) for _ in range(2))
    assert [(a.accuracy, a.success) for a in one] == [(b.accuracy, b.success) for b in other]
    for a, b in zip(one, other, strict=True):
        assert a.round.verdict is not None and b.round.verdict is not None
        assert (a.round.verdict.update == b.round.verdict.update).all()
    assert len(Federation(seed=SEED).attackers) == 4
    assert Federation(seed=SEED).attackers != Federation(seed=SEED + 1).attackers
    roots = {row.tobytes() for row in Federation(seed=SEED).root[0]}
    assert not roots & {row.tobytes() for row in Federation(seed=SEED).measuring[0]}
