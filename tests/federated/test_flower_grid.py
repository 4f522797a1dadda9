"""Flower apps in one process: the same seed gives the same bits, nodes are apart, nothing global is left changed."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flower_case import CLIENTS, NODES, app, model, play, same
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from ostiary.core.errors import ConfigError
from ostiary.federated.flower import BackdoorGuard, arrays_of, tensors_of
from ostiary.federated.flower_grid import InProcessGrid, run_in_process

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The two apps of the example; what they write goes to a folder of the test."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    from digits_app import client_app, server_app

    yield server_app.app, client_app.app
    for name in set(sys.modules) - before:
        if name.startswith("digits_app"):
            del sys.modules[name]


CONFIG = {"num-server-rounds": 3, "local-epochs": 2, "learning-rate": 0.1}


def test_the_example_learns_and_repeats_to_the_bit(example: Any, tmp_path: Path, capsys: Any) -> None:
    server, client = example
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        run_in_process(server, client, 5, run_config=CONFIG, seed=seed)
        state = torch.load(tmp_path / "final.pt", weights_only=True)
        found.append({name: tensor.numpy() for name, tensor in state.items()})
    assert same(found[0], found[1]) and not same(found[0], found[2])
    assert "round 3: 5 of 5 clients taken" in capsys.readouterr().out
    from digits_app.task import accuracy, fresh, test_set

    trained = fresh()
    trained.load_state_dict(state)
    assert accuracy(trained, test_set()) > 0.9


def test_two_runs_of_a_sampling_strategy_ask_the_same_clients_in_the_same_order() -> None:
    """Flower draws clients from the global generator, which is whatever the caller left it as without a grid's seed."""

    def asked(seed: int) -> list[list[str]]:
        guard = BackdoorGuard(FedAvg(fraction_train=0.5), rule="rfa")
        play(guard, rounds=3, seed=seed)
        return [sorted(done.reasons) for done in guard.rounds]

    random.seed(5)
    first = asked(0)
    random.seed(6)
    assert asked(0) == first != asked(1)
    assert all(len(one) == CLIENTS // 2 for one in first) and first[0] != first[1]


def test_nothing_global_is_left_changed() -> None:

    def states() -> list[object]:
        own = np.random.get_state(legacy=False)  # noqa: NPY002 - apps draw from it
        return [random.getstate(), str(own), torch.get_rng_state().tolist()]

    before, identity = states(), (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    play(FedAvg())
    assert states() == before
    assert (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id) == identity


def meddler() -> ClientApp:
    """Changes what it is sent, counts its calls in its state, draws from the global generator."""
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content["arrays"]
        drawn = random.random()  # noqa: S311 - any draw will do
        del arrays["w"]
        count = int(context.state["calls"]["n"]) + 1 if "calls" in context.state else 1  # type: ignore[call-overload]
        context.state["calls"] = MetricRecord({"n": count})
        told = {"n": count, "drawn": drawn, "node": context.node_id, "epochs": int(context.run_config["epochs"])}
        return Message(RecordDict({"metrics": MetricRecord(told)}), reply_to=message)

    return made


def test_nodes_are_apart_and_keep_their_state() -> None:
    with InProcessGrid(meddler(), [{"partition-id": 9}, {}], run_config={"epochs": 4}) as grid:
        arrays = arrays_of(model())
        content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
        rounds = []
        for _ in range(2):
            messages = [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
            rounds.append([reply.content["metrics"] for reply in grid.send_and_receive(messages)])
        assert set(arrays) == set(model()), "what one client does to its copy reaches nobody"
        assert [[told["n"] for told in one] for one in rounds] == [[1, 1], [2, 2]]
        assert [told["node"] for told in rounds[0]] == list(NODES[:2]) and rounds[0][0]["epochs"] == 4
        assert len({told["drawn"] for one in rounds for told in one}) == 4
        assert grid._contexts[2].node_config == {"partition-id": 9, "num-partitions": 2}


def test_messages_can_be_pushed_and_pulled_once() -> None:
    with InProcessGrid(meddler(), 2, run_config={"epochs": 1}) as grid:
        content = RecordDict({"arrays": arrays_of(model())})
        ids = grid.push_messages([grid.create_message(content, "train", 3, "1")])
        (reply,) = grid.pull_messages(ids)
        assert reply.metadata.src_node_id == 3 and reply.metadata.group_id == "1"
        assert list(grid.pull_messages(ids)) == []
        grid.set_run("what Flower says")
        assert grid.run == "what Flower says"


def test_an_app_that_raises_or_answers_nonsense_gives_an_error_reply() -> None:
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Any:
        if context.node_config["partition-id"] == 0:
            raise ValueError("no data")
        return None

    with InProcessGrid(made, 2) as grid:
        content = RecordDict({"arrays": arrays_of(model())})
        replies = list(grid.send_and_receive([Message(content, dst_node_id=n, message_type="train") for n in (2, 3)]))
    assert all(reply.has_error() for reply in replies)
    assert "ValueError: no data" in str(replies[0].error.reason) and "NoneType" in str(replies[1].error.reason)


def test_no_node_and_an_unknown_node_are_refused() -> None:
    with pytest.raises(ConfigError, match="a node at least"):
        InProcessGrid(app(), 0)
    with InProcessGrid(app(), 1) as grid, pytest.raises(ConfigError, match="no node 99"):
        grid.send_and_receive([Message(RecordDict(), dst_node_id=99, message_type="train")])


def test_the_servers_context_comes_back() -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Any, context: Context) -> None:
        result = FedAvg().start(grid, arrays_of(model()), num_rounds=1)
        context.state["final"] = result.arrays

    context = run_in_process(server, app(), CLIENTS)
    assert tensors_of(context.state["final"]).keys() == model().keys()  # type: ignore[arg-type]
