"""A Flower app of a few numbers, whose clients may send anything."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result, Strategy

from ostiary.federated.flower import arrays_of, tensors_of
from ostiary.federated.flower_grid import SERVER, InProcessGrid

CLIENTS, BAD = 13, 2
NODES = tuple(range(SERVER + 1, SERVER + 1 + CLIENTS))
HOSTILE = frozenset(str(node) for node in NODES[:BAD])
"""The nodes that send what `answer` makes; the others send honest replies."""

Answer = Callable[[RecordDict, Message], Any]


def model() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(6, 4)).astype(np.float32),
        "bn.running_mean": np.zeros(4, np.float32),
        "bn.running_var": np.ones(4, np.float32),
        "bn.num_batches_tracked": np.array(7, np.int64),
        "b": np.zeros(4, np.float32),
    }


DIRECTION = np.random.default_rng(1).normal(size=28)
"""Where honest updates go."""


def honest(message: Message, part: int) -> RecordDict:
    """A reply like that of an app: all go the same way, but for noise; statistics are those of unlike shards."""
    rng = np.random.default_rng([2, part])
    found = tensors_of(message.content["arrays"])
    step = 0.1 * (DIRECTION + 0.3 * rng.normal(size=28))
    found["w"] = found["w"] + step[:24].reshape(6, 4).astype(np.float32)
    found["b"] = found["b"] + step[24:].astype(np.float32)
    found["bn.running_mean"] = found["bn.running_mean"] + np.float32(0.01 * part)
    found["bn.num_batches_tracked"] = found["bn.num_batches_tracked"] + 10 + part
    metrics = MetricRecord({"train-loss": 1.0, "num-examples": 50 + part})
    return RecordDict({"arrays": arrays_of(found), "metrics": metrics})


def app(answer: Answer | None = None) -> ClientApp:
    """Clients of which the first two answer with what `answer` makes of an honest reply."""
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        part = int(context.node_config["partition-id"])
        content = honest(message, part)
        if answer is not None and part < BAD:
            content = answer(content, message)
        return content if isinstance(content, Message) else Message(content, reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"accuracy": 0.5, "num-examples": 50})
        content = RecordDict({"metrics": metrics})
        if answer is not None and int(context.node_config["partition-id"]) < BAD:
            given = answer(RecordDict({"arrays": ArrayRecord(), "metrics": metrics}), message)
            content = RecordDict(dict(given.metric_records)) if isinstance(given, RecordDict) else given
        return content if isinstance(content, Message) else Message(content, reply_to=message)

    return made


def play(strategy: Strategy, answer: Answer | None = None, *, rounds: int = 1, seed: int = 0) -> Result:
    """Run a strategy over the app."""
    with InProcessGrid(app(answer), CLIENTS, seed=seed) as grid:
        return strategy.start(grid, arrays_of(model()), num_rounds=rounds)


def honest_mean() -> np.ndarray:
    """The trained tensors that plain averaging of honest clients comes to after one round, flat."""
    with InProcessGrid(app(), 1):
        message = Message(RecordDict({"arrays": arrays_of(model())}), dst_node_id=2, message_type="train")
    sent = [tensors_of(honest(message, part)["arrays"]) for part in range(BAD, CLIENTS)]
    return np.mean([flat(one) for one in sent], axis=0)


def flat(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tensors["w"].ravel(), tensors["b"].ravel()]).astype(float)


def changed(content: RecordDict, change: Callable[[dict[str, np.ndarray]], Any]) -> RecordDict:
    """The reply with other tensors."""
    tensors = tensors_of(content["arrays"])
    given = change(tensors)
    content["arrays"] = arrays_of(tensors if given is None else given)
    return content


def with_bytes(content: RecordDict, name: str, data: bytes) -> RecordDict:
    """The reply with other bytes for a tensor."""
    old = content["arrays"][name]
    content["arrays"][name] = Array(old.dtype, old.shape, old.stype, data)
    return content


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """The same tensors to the bit."""
    return {n: (str(t.dtype), t.shape, t.tobytes()) for n, t in one.items()} == {
        n: (str(t.dtype), t.shape, t.tobytes()) for n, t in other.items()
    }
