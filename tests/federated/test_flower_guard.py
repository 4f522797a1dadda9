"""The guard in front of Flower's strategies: what it hands on, keeps, refuses and records."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flower_case import CLIENTS, HOSTILE, NODES, app, changed, flat, honest_mean, model, play, same
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)

from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, ModelError, NotMet
from ostiary.core.run import Run
from ostiary.federated.admission import Admission, Reply
from ostiary.federated.flower import STATISTICS, BackdoorGuard, arrays_of, tensors_of
from ostiary.federated.flower_grid import InProcessGrid
from ostiary.federated.record import Judged, read_rounds, write_rounds
from ostiary.federated.rounds import Round, Server
from ostiary.federated.verdict import Aggregated, Reason, nobody
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.refusal import Refused
from ostiary.provenance.trust import read_trust

STRATEGIES = {
    "FedAvg": FedAvg,
    "FedAvgM": FedAvgM,
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAdam": FedAdam,
    "FedYogi": FedYogi,
    "FedAdagrad": FedAdagrad,
    "FedMedian": FedMedian,
    "FedTrimmedAvg": FedTrimmedAvg,
    "Krum": lambda: Krum(num_malicious_nodes=2),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=2, num_nodes_to_select=9),
    "Bulyan": lambda: Bulyan(num_malicious_nodes=2),
    "DP": lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1e-6, 10.0, CLIENTS),
}
STATS = tuple(name for name in model() if name.split(".")[-1] in STATISTICS)


def cautions(guard: BackdoorGuard) -> set[str]:
    return {caution.code for caution in guard.run.cautions}


def far(content: RecordDict, _: Message) -> RecordDict:
    """An update against all others, of a usual length."""
    return changed(content, lambda tensors: tensors.update(w=2 * model()["w"] - tensors["w"], b=-tensors["b"]))


# What the strategy gets


@pytest.mark.parametrize("mode", ["replace", "filter"])
@pytest.mark.parametrize("make_one", STRATEGIES.values(), ids=STRATEGIES)
def test_every_strategy_works_behind_the_guard(make_one: Any, mode: Any) -> None:
    guard = BackdoorGuard(make_one(), mode=mode, rule="rfa")
    found = tensors_of(play(guard, rounds=3).arrays)
    start = model()
    assert {n: (t.dtype, t.shape) for n, t in found.items()} == {n: (t.dtype, t.shape) for n, t in start.items()}
    assert [done.number for done in guard.rounds] == [1, 2, 3]
    assert all(done.accepted == {str(node) for node in NODES} for done in guard.rounds)
    way = flat(found) - flat(start)
    cosine = way @ (honest_mean() - flat(start)) / np.linalg.norm(way) / np.linalg.norm(honest_mean() - flat(start))
    assert cosine > 0.7, "it goes where the clients go"
    assert found["bn.num_batches_tracked"] == 7 and found["bn.num_batches_tracked"].dtype == np.int64
    assert np.allclose(found["bn.running_var"], 1, atol=1e-6) and (found["bn.running_mean"] > 0.1).all()


def test_replace_is_the_rule_as_the_engine_in_process_has_it() -> None:
    """The same replies to `Server` and through Flower: the same model but for float32, the same record."""
    guard = BackdoorGuard(FedAvg())
    found = tensors_of(play(guard).arrays)
    sent = []

    class Listening(BackdoorGuard):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            messages = list(replies)
            for message in messages:
                tensors = tensors_of(message.content["arrays"])
                sent.append(Reply(str(message.metadata.src_node_id), tensors, round=1))
            return super().aggregate_train(server_round, messages)

    play(Listening(FedAvg()))
    server, run = Server(model(), make("aggregate", "guard"), statistics=STATS), Run()
    decided = server.aggregate(sorted(sent, key=lambda reply: reply.node), run=run)
    assert all(np.allclose(found[name], server.model[name], rtol=1e-6, atol=1e-6) for name in found)
    (same_round,) = guard.rounds
    assert decided.verdict is not None and same_round.verdict is not None
    assert same_round.reasons == decided.reasons and same_round.clients == decided.clients
    assert (same_round.verdict.weights == decided.verdict.weights).all()
    assert (same_round.verdict.scores == decided.verdict.scores).all()


def test_filter_keeps_the_tensors_of_those_who_stay() -> None:
    """Plain averaging behind a rule that refuses; the mean of the others, but for the attackers' part in it."""
    guard = BackdoorGuard(FedAvg(), rule="flame-updates", mode="filter")
    found = flat(tensors_of(play(guard, far).arrays))
    (done,) = guard.rounds
    assert not HOSTILE & done.accepted and all(done.reasons[node].code.startswith("OS52") for node in HOSTILE)
    bare = flat(tensors_of(play(FedAvg(), far).arrays))
    want = honest_mean()
    assert np.linalg.norm(found - want) < 0.5 * np.linalg.norm(bare - want)


def test_filter_says_what_is_lost_of_a_rule() -> None:
    """`guard` refuses nobody and trims: handing on replies loses that. A plain mean loses nothing."""
    guard = BackdoorGuard(FedAvg(), mode="filter")
    play(guard)
    assert cautions(guard) == {"OS938"}
    mean = BackdoorGuard(FedAvg(), rule=make("aggregate", "norm-clip", {"bound": 1e9}), mode="filter")
    play(mean)
    assert cautions(mean) == set()


def test_the_own_update_and_the_probe_reach_the_rule() -> None:
    """FLTrust follows the server's own update; without trusted samples it cannot work, which ends the run."""
    start = model()

    def root(arrays: ArrayRecord) -> ArrayRecord:
        tensors = tensors_of(arrays)
        return arrays_of({**tensors, "w": tensors["w"] + 1, "b": tensors["b"] + 1})

    guard = BackdoorGuard(FedAvg(), rule="fltrust", root=root)
    found = tensors_of(play(guard).arrays)
    assert np.linalg.norm(flat(found) - flat(start)) <= np.sqrt(28) + 1e-6
    with pytest.raises(NotMet, match="own"):
        play(BackdoorGuard(FedAvg(), rule="fltrust"))

    def probe(arrays: ArrayRecord, inputs: Any) -> Any:
        tensors = tensors_of(arrays)
        logits = np.exp(inputs @ tensors["w"].astype(float) + tensors["b"])
        return logits / logits.sum(1, keepdims=True)

    seen = []

    class Rule:
        card = make("aggregate", "rfa").card

        def aggregate(self, updates: Any, context: Any, /, *, run: Run) -> Aggregated:
            seen.append(context.probe(context.weights, np.zeros((2, 6))))
            return make("aggregate", "rfa").aggregate(updates, context, run=run)  # type: ignore[no-any-return]

    play(BackdoorGuard(FedAvg(), rule=Rule(), probe=probe, input_shape=(6,), head=("w", "b")))
    assert np.allclose(seen[0], 0.25)


# Statistics


def test_statistics_are_no_part_of_distances_and_averaged_over_the_accepted() -> None:
    """Counters and means of attackers who are refused count for nothing; unlike ones of honest clients harm nobody."""
    means = []

    def odd(content: RecordDict, message: Message) -> RecordDict:
        tensors = {"bn.running_mean": np.full(4, 100, np.float32), "w": np.full((6, 4), np.nan, np.float32)}
        return changed(content, lambda old: old.update(tensors))

    def statistics_alone(content: RecordDict, message: Message) -> RecordDict:
        return changed(content, lambda old: old.update({"bn.num_batches_tracked": np.array(10**6)}))

    for answer in (odd, statistics_alone):
        guard = BackdoorGuard(FedAvg(), rule="norm-clip")
        means.append(tensors_of(play(guard, answer).arrays)["bn.running_mean"])
        assert guard.rounds[0].accepted == {str(node) for node in NODES} - (HOSTILE if answer is odd else set())
    assert np.allclose(means[0], 0.07) and np.allclose(means[1], 0.06)
    named = BackdoorGuard(FedAvg(), rule="norm-clip", statistics=("bn.num_batches_tracked",))
    assert (tensors_of(play(named).arrays)["bn.running_mean"] < 0.07).all()


# Rounds that come to nothing


def masked(content: RecordDict, _: Message) -> RecordDict:
    return RecordDict({"secaggplus_configs": ConfigRecord({"masked": b"1"})})


class Deaf(InProcessGrid):
    """Some nodes never answer."""

    silent: frozenset[int] = frozenset(NODES)
    extra: tuple[int, ...] = ()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        found = [m for m in super().send_and_receive(messages) if m.metadata.src_node_id not in self.silent]
        more = [m for m in found if m.metadata.src_node_id in self.extra]
        return found + more


def codes(done: Round) -> dict[str, str]:
    return {node: reason.code for node, reason in done.reasons.items()}


def ask(guard: BackdoorGuard, silent: Iterable[int], extra: tuple[int, ...] = (), n: int = CLIENTS) -> Any:
    with Deaf(app(), n) as grid:
        grid.silent, grid.extra = frozenset(silent), extra
        return guard.start(grid, arrays_of(model()), num_rounds=1)


def test_where_nobody_answers_the_model_stays() -> None:
    guard = BackdoorGuard(FedAvg())
    result = ask(guard, NODES)
    assert same(tensors_of(result.arrays), model())
    assert cautions(guard) == {"OS926"} and guard.rounds[0].accepted == frozenset()
    assert set(codes(guard.rounds[0]).values()) == {"OS512"} and len(guard.dropped_evaluations[1]) == CLIENTS


def test_fewer_than_the_rule_needs_and_one_that_is_enough() -> None:
    for left, code in ((3, {"OS927"}), (4, set())):
        guard = BackdoorGuard(FedAvg())
        result = ask(guard, NODES[left:])
        assert cautions(guard) == code
        assert same(tensors_of(result.arrays), model()) == bool(code)


def test_two_replies_of_one_node_and_one_that_nobody_asked() -> None:
    guard = BackdoorGuard(FedAvg())
    ask(guard, (), extra=(NODES[0],))
    assert codes(guard.rounds[0])[str(NODES[0])] == "OS507" and codes(guard.rounds[0])[str(NODES[1])] != "OS507"
    asked = BackdoorGuard(FedAvg())
    with InProcessGrid(app(), CLIENTS) as grid:
        messages = list(asked.configure_train(1, arrays_of(model()), ConfigRecord(), grid))
        asked._asked = tuple(m.metadata.dst_node_id for m in messages if m.metadata.dst_node_id != NODES[3])
        asked.aggregate_train(1, grid.send_and_receive(messages))
    assert codes(asked.rounds[0])[str(NODES[3])] == "OS510" and asked.rounds[0].accepted


def test_secure_aggregation_ends_the_run_with_a_clear_error() -> None:
    """All masked: an error. Two of many masked: dropped, as one client must not be able to end a run."""
    guard = BackdoorGuard(FedAvg(min_train_nodes=2))
    with InProcessGrid(app(masked), 2) as grid, pytest.raises(NotMet, match="secure aggregation") as error:
        guard.start(grid, arrays_of(model()), num_rounds=1)
    assert error.value.hint and "secaggplus" in error.value.hint
    several = BackdoorGuard(FedAvg())
    play(several, masked)
    assert several.rounds[0].accepted and codes(several.rounds[0])[str(NODES[0])] == "OS517"


def test_one_masked_reply_while_the_others_are_silent_ends_nothing() -> None:
    for n in (CLIENTS, 1):
        guard = BackdoorGuard(FedAvg(min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1))
        with Deaf(app(masked), n) as grid:
            grid.silent = frozenset(NODES[1:])
            result = guard.start(grid, arrays_of(model()), num_rounds=1)
        assert codes(guard.rounds[0])[str(NODES[0])] == "OS517"
        assert "OS926" in cautions(guard) and same(tensors_of(result.arrays), model())


def test_a_rule_that_accepts_nobody_still_says_why() -> None:
    class Rule:
        card = make("aggregate", "rfa").card

        def aggregate(self, updates: Any, context: Any, /, *, run: Run) -> Aggregated:
            refused = {i: Reason("OS523", "unlike the others") for i in range(len(updates))}
            return nobody(context, np.zeros(len(updates)), refused, "all are unlike", run=run)

    guard = BackdoorGuard(FedAvg(), rule=Rule())
    result = play(guard)
    assert cautions(guard) == {"OS928"} and same(tensors_of(result.arrays), model())
    assert guard.rounds[0].verdict is not None and guard.rounds[0].accepted == frozenset()
    assert set(codes(guard.rounds[0]).values()) == {"OS523"}


def test_a_strategy_that_makes_no_model_leaves_the_last_one() -> None:
    guard = BackdoorGuard(Bulyan(num_malicious_nodes=3))
    result = play(guard)
    assert cautions(guard) == {"OS939"} and guard.rounds[0].accepted == frozenset()
    assert same(tensors_of(result.arrays), model())


def test_a_strategy_whose_model_is_not_finite_leaves_the_last_one() -> None:
    guard = BackdoorGuard(FedAdam(eta=1e40))
    result = play(guard)
    assert "OS929" in cautions(guard) and guard.rounds[0].accepted == frozenset()
    assert same(tensors_of(result.arrays), model())


def test_clients_that_vanish_come_back_or_change() -> None:
    """Round 2: two clients fail; round 3: they send other shapes; round 4: all is well again."""

    def answer(content: RecordDict, message: Message) -> RecordDict:
        number = message.content["config"]["server-round"]
        if number == 2:
            raise RuntimeError
        if number == 3:
            return changed(content, lambda tensors: tensors.update(b=np.zeros(5, np.float32)))
        return content

    guard = BackdoorGuard(FedAvg())
    play(guard, answer, rounds=4)
    told = [{codes(done)[node] for node in HOSTILE} for done in guard.rounds]
    assert told[1:3] == [{"OS511"}, {"OS503"}] and told[0] | told[3] <= {"", "OS521"}


# What is refused at once


def test_what_cannot_be_guarded_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="mode"):
        BackdoorGuard(FedAvg(), mode="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no aggregate method"):
        BackdoorGuard(FedAvg(), rule="krumm")
    with pytest.raises(ConfigError, match="no strategy"):
        BackdoorGuard(object())
    trees = ArrayRecord([np.frombuffer(b"{}", np.uint8)])
    with InProcessGrid(app(), CLIENTS) as grid, pytest.raises(ModelError, match="no trained tensor"):
        BackdoorGuard(FedAvg()).start(grid, trees, num_rounds=1)
    broken = {**model(), "b": np.full(4, np.nan, np.float32)}
    with InProcessGrid(app(), CLIENTS) as grid, pytest.raises(ModelError, match="not finite"):
        BackdoorGuard(FedAvg()).start(grid, arrays_of(broken), num_rounds=1)


def test_the_package_needs_no_flower_and_says_what_is_missing() -> None:
    code = """
import sys
sys.modules["flwr"] = sys.modules["flwr.app"] = None
import ostiary.federated, ostiary.federated.rounds
from ostiary.core.errors import MissingExtra
for name in ("flower", "flower_grid", "flower_replies"):
    try:
        __import__(f"ostiary.federated.{name}")
    except MissingExtra as error:
        print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["pip install 'ostiary[federated]'"] * 3


# What is told of a round


def test_a_round_is_told_with_the_models_around_it() -> None:
    """All that a statement of a round needs comes at once; what is kept for the whole run holds no update."""
    told: list[Judged] = []
    guard = BackdoorGuard(FedAvg(), admission=Admission(weigh="claimed"), on_round=told.append)
    result = play(guard, rounds=2)
    assert [judged.done.number for judged in told] == [1, 2] and {judged.rule.card.id for judged in told} == {
        "aggregate.guard"
    }
    assert same(told[0].before, model()) and same(told[0].after, told[1].before)
    assert same(told[1].after, tensors_of(result.arrays)) and not same(told[1].after, told[1].before)
    verdict = told[0].done.verdict
    assert verdict is not None and verdict.weights.sum() == pytest.approx(1) and verdict.update.shape == (28,)
    assert all(done.verdict is not None and done.verdict.update.size == 0 for done in guard.rounds)
    assert [done.reasons for done in guard.rounds] == [judged.done.reasons for judged in told]
    assert told[0].cautions == ()


def test_rounds_are_signed_as_they_end(tmp_path: Path) -> None:
    new_key(tmp_path / "server")
    tell = write_rounds(tmp_path / "rounds", [read_private(tmp_path / "server.key")])
    result = play(BackdoorGuard(FedAvg(), rule="norm-clip", on_round=tell), rounds=2)
    last = tensors_of(result.arrays)
    rounds = read_rounds(tmp_path / "rounds", read_trust(tmp_path / "server.pub"), last)
    assert [one.round for one in rounds] == [1, 2] and len(rounds[0].clients) == 13
    changed = last | {name: tensor + 1 for name, tensor in list(last.items())[:1]}
    with pytest.raises(Refused, match="OS541"):
        read_rounds(tmp_path / "rounds", read_trust(tmp_path / "server.pub"), changed)


def test_strategies_of_other_packages_may_have_no_key_for_examples() -> None:
    class Own(Strategy):
        inner = FedAvg()

        def summary(self) -> None:
            """Nothing."""

        def configure_train(self, *args: Any) -> Any:
            return self.inner.configure_train(*args)

        def aggregate_train(self, *args: Any) -> Any:
            return self.inner.aggregate_train(*args)

        def configure_evaluate(self, *args: Any) -> Any:
            return []

        def aggregate_evaluate(self, *args: Any) -> Any:
            raise AssertionError("there is nothing to aggregate")

    guard = BackdoorGuard(Own())
    play(guard)
    assert guard.rounds[0].accepted and guard.dropped_evaluations == {}
