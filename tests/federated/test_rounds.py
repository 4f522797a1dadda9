"""Rounds in one process: exactly repeatable, cheap, and standing whatever clients send."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from federated_case import context
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.core.codes import explain
from ostiary.core.errors import ConfigError, ModelError, NotMet, OutOfTime
from ostiary.core.run import Run
from ostiary.federated.admission import Reply
from ostiary.federated.flame import Flame
from ostiary.federated.fltrust import FLTrust
from ostiary.federated.network import Network, Recipe, fit, shards
from ostiary.federated.norm_clip import NormClip
from ostiary.federated.rounds import Client, Server, run_rounds
from ostiary.federated.verdict import Aggregated, Context, TooFew, verdict

START = {"w": np.zeros(3, np.float32), "mean": np.zeros(2, np.float32), "count": np.array(0)}


def server(rule: Any = None, **more: Any) -> Server:
    return Server(
        {name: tensor.copy() for name, tensor in START.items()},
        rule or NormClip(),
        statistics=("mean", "count"),
        **more,
    )


def steady(name: str, value: float = 1.0, mean: float = 0.0) -> Client:
    """A client that always moves every weight by `value`."""

    def answer(model: Any, number: int) -> Reply:
        moved = {"w": model["w"] + np.float32(value), "mean": np.full(2, mean, np.float32), "count": np.array(9)}
        return Reply(name, moved, 1.0, number)

    return answer


def test_a_round_moves_the_model_and_averages_statistics_over_the_accepted() -> None:
    at = server(RefuseFirst())
    clients = {name: steady(name, 1.0, mean) for name, mean in (("a", 100.0), ("b", 1.0), ("c", 3.0))}
    (done,) = run_rounds(clients, at, 1, run=Run())
    assert at.model["w"].tolist() == [1, 1, 1] and at.model["w"].dtype == np.float32
    assert at.model["mean"].tolist() == [2, 2], "a's mean of 100 has no part in it"
    assert at.model["count"] == 0, "counters stay"
    assert done.accepted == {"b", "c"} and done.reasons["a"].code == "OS524"


def test_one_client_s_statistics_cannot_ruin_the_model() -> None:
    at = server()
    means = (1.0, 2.0, 3.0, 4.0, 1e30)
    clients = {name: steady(name, 1.0, mean) for name, mean in zip("abcde", means, strict=True)}
    (done,) = run_rounds(clients, at, 1, run=Run())
    assert len(done.accepted) == 5
    # The median is 3, the median deviation 1: 1e30 counts as 6.
    assert at.model["mean"].tolist() == pytest.approx([3.2, 3.2])


class RefuseFirst:
    """Refuses the first client and averages the others."""

    def aggregate(self, updates: np.ndarray, context: Context, /, *, run: Run) -> Aggregated:
        from ostiary.federated.verdict import Reason

        weights = np.full(len(updates), 1 / (len(updates) - 1))
        return verdict(updates[1:].mean(0), weights, np.zeros(len(updates)), {0: Reason("OS524", "first")})


def test_statistics_are_no_part_of_a_distance() -> None:
    at, seen = server(), []

    class Look(NormClip):
        def aggregate(self, updates: Any, context: Any, /, *, run: Any) -> Any:
            seen.append(updates.copy())
            return NormClip().aggregate(updates, context, run=run)

    at.rule = Look()
    at.aggregate([steady(name, 1.0, 1e6)(at.model, 1) for name in "abc"], run=Run())
    assert seen[0].shape == (3, 3) and (seen[0] == 1).all()


def test_all_rejected_keeps_the_model() -> None:
    at, run = server(), Run()
    done = at.aggregate([steady(name, np.nan)(at.model, 1) for name in "abc"], run=run)
    assert (at.model["w"] == 0).all() and done.verdict is None and done.accepted == set()
    assert {reason.code for reason in done.reasons.values()} == {"OS501"}
    assert [caution.code for caution in run.cautions] == ["OS926"]
    run = Run()
    at.aggregate([steady(name)(at.model, 2) for name in "abc"], run=run)
    assert (at.model["w"] == 1).all() and not run.cautions


def test_fewer_than_the_rule_needs_keeps_the_model() -> None:
    at, run = server(Flame()), Run()
    done = at.aggregate([steady(name)(at.model, 1) for name in "ab"], run=run)
    assert (at.model["w"] == 0).all() and done.verdict is None and done.clients == ("a", "b")
    assert [caution.code for caution in run.cautions] == ["OS927"]
    assert "needs 3 clients" in run.cautions[0].text
    at.aggregate([steady(name)(at.model, 2) for name in "abc"], run=run)
    assert (at.model["w"] != 0).all() and len(run.cautions) == 1


def test_a_rule_that_lacks_something_is_an_error_and_no_caution() -> None:
    at = server(FLTrust())
    with pytest.raises(NotMet, match="server's own") as caught:
        at.aggregate([steady(name)(at.model, 1) for name in "abc"], run=Run())
    assert not isinstance(caught.value, TooFew)


class FarAway(NormClip):
    """Aggregates to more than half precision can hold."""

    def aggregate(self, updates: Any, context: Any, /, *, run: Any) -> Any:
        n = len(updates)
        return verdict(np.full(updates.shape[1], 1e5), np.full(n, 1 / n), np.zeros(n))


def test_a_model_that_would_overflow_is_not_taken() -> None:
    for dtype, code in ((np.float16, ["OS929"]), (np.float32, [])):
        at, run = Server({"w": np.zeros(2, dtype)}, FarAway()), Run()
        done = at.aggregate([Reply("a", {"w": np.ones(2, dtype)}, 1.0, 1)], run=run)
        assert [caution.code for caution in run.cautions] == code
        assert np.isfinite(at.model["w"]).all() and (done.verdict is None) == bool(code)


def test_a_broken_global_model_is_an_error() -> None:
    at = server()
    at.model["w"][0] = np.nan
    with pytest.raises(ModelError, match="global model"):
        at.aggregate([], run=Run())


def test_vanished_late_and_changed_clients_do_not_stop_the_run() -> None:
    at = server()
    kept: list[Reply] = []

    def late(model: Any, number: int) -> Reply:
        kept.append(steady("late")(model, number))
        return kept[max(0, number - 2)]

    def grows(model: Any, number: int) -> Reply:
        reply = steady("grows")(model, number)
        return replace(reply, tensors={**reply.tensors, "w": np.zeros(3 + number // 2, np.float32)})

    clients = {"a": steady("a"), "b": steady("b"), "gone": lambda model, number: None, "late": late, "grows": grows}
    first, second = run_rounds(clients, at, 2, run=Run())
    assert first.accepted == {"a", "b", "late", "grows"} and first.refused == {}
    assert {name: reason.code for name, reason in second.refused.items()} == {"late": "OS508", "grows": "OS503"}
    assert second.accepted == {"a", "b"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(width=32), st.floats(), st.integers(0, 3)), min_size=1, max_size=6))
def test_the_model_stays_finite_whatever_comes(drawn: list[tuple[float, float, int]]) -> None:
    at, run = server(), Run()
    replies = [
        Reply(f"c{i}", {**START, "w": np.array([value, 0, 0], np.float32)}, examples, number)
        for i, (value, examples, number) in enumerate(drawn)
    ]
    done = at.aggregate(replies, run=run)
    assert all(np.isfinite(tensor).all() for tensor in at.model.values())
    assert set(done.reasons) == {reply.node for reply in replies}
    assert all(reason.text for reason in done.reasons.values())
    for caution in run.cautions:
        explain(caution.code)


NETWORK = Network()


def busy(name: str, seed: int) -> Client:
    """A client that sends noise, for free."""
    noise = NETWORK.tensors(np.random.default_rng(seed).normal(size=NETWORK.size) * 0.01)
    return lambda model, number: Reply(name, {key: model[key] + noise[key] for key in noise}, 1.0, number)


def test_a_round_of_twenty_small_clients_costs_less_than_ten_milliseconds() -> None:
    clients = {f"c{i}": busy(f"c{i}", i) for i in range(20)}
    at = Server(NETWORK.tensors(NETWORK.fresh(np.random.default_rng(0))), Flame())
    seconds = [time.process_time() for _ in run_rounds(clients, at, 12, run=Run())]
    assert min(np.diff(seconds)) < 0.01, f"{1000 * min(np.diff(seconds)):.1f} ms"


def test_rounds_are_exactly_repeatable_whatever_order_clients_are_named_in() -> None:
    def final(names: list[str]) -> np.ndarray:
        at = Server(NETWORK.tensors(NETWORK.fresh(np.random.default_rng(0))), Flame(noise=0.1))
        list(run_rounds({name: busy(name, int(name)) for name in names}, at, 3, run=Run(seed=5)))
        return NETWORK.flat(at.model)

    one = final(list("123456"))
    assert (one == final(list("652431"))).all()
    assert (one != final(list("123457"))).any()


def test_the_deadline_ends_the_rounds() -> None:
    with pytest.raises(OutOfTime, match="rounds, at 0 of 3"):
        list(run_rounds({"a": steady("a")}, server(), 3, run=Run(deadline=0.0)))


# The network


def test_the_gradient_is_that_of_differences() -> None:
    rng = np.random.default_rng(0)
    network = Network(inputs=4, hidden=5, classes=3)
    weights, x, y = network.fresh(rng), rng.normal(size=(6, 4)), rng.integers(0, 3, 6)

    def loss(w: np.ndarray) -> float:
        return float(-np.log(network.probabilities(w, x)[np.arange(6), y]).mean())

    step = 1e-6 * np.eye(network.size)
    by_hand = [(loss(weights + one) - loss(weights - one)) / 2e-6 for one in step]
    np.testing.assert_allclose(network.gradient(weights, x, y), by_hand, atol=1e-7)
    assert (network.flat(network.tensors(weights)) == weights).all()


def test_training_learns_obeys_its_hooks_and_leaves_the_start_alone() -> None:
    rng = np.random.default_rng(0)
    network = Network(inputs=2, hidden=8, classes=2)
    x = rng.normal(size=(100, 2))
    y = (x[:, 0] > 0).astype(np.int64)
    start = network.fresh(rng)
    before = start.copy()
    recipe = Recipe(epochs=20)

    def trained(**hooks: Any) -> np.ndarray:
        return fit(network, start, x, y, recipe, np.random.default_rng(1), **hooks)

    assert (network.probabilities(trained(), x).argmax(1) == y).mean() > 0.95
    assert (start == before).all() and (trained() == trained()).all()
    assert (trained(change=lambda weights, gradient: 0 * gradient) == start).all()
    assert (trained(project=lambda weights: start.copy()) == start).all()


@pytest.mark.parametrize("alpha", [None, 0.5, 0.1])
def test_shards_part_all_rows(alpha: float | None) -> None:
    labels = np.repeat(np.arange(10), 100)
    parts = shards(labels, 20, np.random.default_rng(0), alpha=alpha)
    assert len(parts) == 20 and (np.sort(np.concatenate(parts)) == np.arange(1000)).all()
    assert min(map(len, parts)) >= 10
    shares = np.array([np.bincount(labels[part], minlength=10).max() / len(part) for part in parts])
    low, high = {None: (0, 0.3), 0.5: (0.25, 0.6), 0.1: (0.45, 1)}[alpha]
    assert low < shares.mean() < high


def test_shards_that_cannot_be_drawn_are_an_error() -> None:
    labels = np.repeat(np.arange(10), 100)
    with pytest.raises(ConfigError, match=r"no split at alpha 0\.001 gives 20 clients 10 samples each") as caught:
        shards(labels, 20, np.random.default_rng(0), alpha=0.001)
    assert caught.value.hint


def test_a_context_says_nothing_about_attackers() -> None:
    names = set(context(np.zeros((2, 2))).__dataclass_fields__)
    assert names == {"clients", "weights", "shares", "round", "memory", "root", "probe", "input_shape", "head"}
