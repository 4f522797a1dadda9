"""Flower's strategies as a rule: what they answer is what Flower answers; who was selected is told."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from federated_case import aggregate, codes
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError
from ostiary.federated.verdict import TooFew

N, D = 13, 20
WEIGHTS = np.random.default_rng(1).normal(size=D)


def updates() -> np.ndarray:
    """Eleven alike, and the first two far away but near to each other."""
    rng = np.random.default_rng(0)
    found = 1 + 0.3 * rng.normal(size=(N, D))
    found[:2] = -8 + 0.1 * rng.normal(size=(2, D))
    return found


def flowers(strategy: Any) -> np.ndarray:
    """What a strategy of Flower makes of the same clients."""
    contents = [
        RecordDict(
            {"arrays": ArrayRecord({"w": Array(WEIGHTS + row)}), "metrics": MetricRecord({"num-examples": 1 / N})}
        )
        for row in updates()
    ]
    arrays, _ = strategy.aggregate_train(1, [SimpleNamespace(content=one, has_error=lambda: False) for one in contents])
    return np.asarray(arrays["w"].numpy() - WEIGHTS)


THEIRS = {
    "krum": lambda f: Krum(num_malicious_nodes=f),
    "multi-krum": lambda f: MultiKrum(num_malicious_nodes=f, num_nodes_to_select=N - f),
    "bulyan": lambda f: Bulyan(num_malicious_nodes=f),
    "trimmed-mean": lambda f: FedTrimmedAvg(beta=(f + 0.5) / N),
    "median": lambda f: FedMedian(),
}


@pytest.mark.parametrize("f", [0, 2, 4])
@pytest.mark.parametrize("name", THEIRS)
def test_the_answer_is_flowers(name: str, f: int) -> None:
    rule = make("aggregate", "flower", {"strategy": name, "declared": f})
    if name == "bulyan" and f == 4:
        with pytest.raises(TooFew, match="19"):
            aggregate(rule, updates(), weights=WEIGHTS)
        return
    found = aggregate(rule, updates(), weights=WEIGHTS)
    assert np.allclose(found.update, flowers(THEIRS[name](f)), rtol=1e-12, atol=1e-12)
    assert found.weights.sum() == pytest.approx(1) and np.isnan(found.scores).all()
    selected = {"krum": 1, "multi-krum": N - f, "bulyan": N - 2 * f}.get(name, N)
    assert found.accepted.sum() == selected and codes(found).count("OS529") == N - selected


@pytest.mark.parametrize("name", ["krum", "multi-krum", "bulyan"])
def test_those_far_away_are_not_selected(name: str) -> None:
    found = aggregate(make("aggregate", "flower", {"strategy": name, "declared": 2}), updates(), weights=WEIGHTS)
    assert not found.accepted[:2].any() and codes(found)[:2] == ["OS529", "OS529"]
    nobody = aggregate(make("aggregate", "flower", {"strategy": "multi-krum", "declared": 0}), updates())
    assert nobody.accepted.all(), "told that nobody attacks, Multi-Krum takes all"


def test_a_cut_is_as_large_as_declared() -> None:
    """Two values of -8 are cut at f = 2; at f = 1 one of them stays."""
    means = [
        aggregate(make("aggregate", "flower", {"strategy": "trimmed-mean", "declared": f}), updates()) for f in (1, 2)
    ]
    assert means[0].update.mean() < 0.6 < means[1].update.mean()


def test_no_other_strategy_and_no_negative_number() -> None:
    for wrong in ({"strategy": "mean"}, {"declared": -1}):
        with pytest.raises(ConfigError):
            make("aggregate", "flower", wrong)
    with pytest.raises(TooFew):
        aggregate(make("aggregate", "flower", {"strategy": "trimmed-mean", "declared": 7}), updates())


def test_a_round_is_not_logged_and_flower_s_own_runs_still_are() -> None:
    log, heard = logging.getLogger("flwr"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    try:
        aggregate(make("aggregate", "flower", {"strategy": "median"}), updates())
        assert heard == [] and log.level == level
        log.info("as before")
        assert heard == ["as before"]
    finally:
        log.removeHandler(handler)
