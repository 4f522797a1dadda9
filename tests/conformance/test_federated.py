"""Rules against attacking clients on the digits: what the guard holds and its parts alone do not."""

import numpy as np
import pytest

from ostiary.core.catalog import make
from ostiary.federated.attacks.badnets import BadNets
from ostiary.federated.attacks.dba import DBA
from ostiary.federated.attacks.pgd import PGD
from ostiary.federated.attacks.study import Federation, Outcome, Threat, run_study

SEED = 100
"""Of the seeds that the guard was developed on; the report's are 0 to 2."""

PLAIN, SHORT = Threat(data=BadNets()), Threat(data=BadNets(), updates=(PGD(),))


def study(rule: str, threat: Threat | None, alpha: float | None = None, **params: object) -> list[Outcome]:
    """Thirty rounds, attacked from the eleventh on."""
    return list(run_study(Federation(seed=SEED, alpha=alpha), make("aggregate", rule, params), threat, rounds=30))


def success(run: list[Outcome]) -> float:
    assert run[-1].success is not None and run[-1].success.value is not None
    return run[-1].success.value


def accuracy(run: list[Outcome]) -> float:
    """Of the last ten rounds, since a single one says little."""
    return float(np.mean([outcome.accuracy.value or 0.0 for outcome in run[-10:]]))


@pytest.mark.parametrize("alpha", [0.5, 0.1])
def test_the_guard_holds_poison_that_is_kept_short(alpha: float) -> None:
    run = study("guard", SHORT, alpha)
    assert success(run) <= 0.05 and accuracy(run) >= 0.85
    assert all(outcome.honest_refused.k == 0 for outcome in run)


def test_the_guard_holds_a_trigger_in_parts() -> None:
    assert success(study("guard", Threat(data=DBA()), 0.5)) <= 0.05


def test_the_guard_costs_little_where_nobody_attacks() -> None:
    plain = accuracy(study("norm-clip", None, 0.5, bound=1e9))
    assert accuracy(study("guard", None, 0.5)) >= plain - 0.02
    assert accuracy(study("guard", None, 0.5, trusted=0.0)) >= plain - 0.02


def test_mutant_of_the_guard_that_cuts_one_client_fails() -> None:
    assert success(study("guard", SHORT, 0.5, trim=0.01, trusted=0.0)) > 0.2


def test_without_trusted_samples_unlike_clients_are_not_guarded() -> None:
    """A known limit, and why `trusted` is there: whoever knows a class is no majority."""
    assert success(study("guard", SHORT, 0.1, trusted=0.0)) > 0.1


def test_flame_refuses_plain_poison_and_many_honest_clients_without_any() -> None:
    run = study("flame-updates", PLAIN)
    assert success(run) <= 0.05
    assert all(outcome.attackers_refused.k == 4 for outcome in run[10:])
    idle = study("flame-updates", None)
    assert np.mean([outcome.honest_refused.value or 0.0 for outcome in idle]) > 0.25
