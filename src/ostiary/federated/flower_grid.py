"""Flower apps in one process: the real ServerApp and ClientApp without Ray or SuperLink, seeded and repeatable."""

import copy
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch

from ostiary.core.errors import ConfigError, MissingExtra

try:
    from flwr.app import Context, Error, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
except ImportError as error:
    raise MissingExtra("this needs Flower", hint="pip install 'ostiary[federated]'") from error

RUN_ID = 1
SERVER = 1
"""The node id of the server; those of clients follow it."""
RAISED = 2
"""Flower's code for a ClientApp that raised."""

Config = Mapping[str, "bool | float | int | str"]


class InProcessGrid(Grid):  # type: ignore[misc] # Flower is an extra that mypy does not read
    """A grid whose nodes run `app` one after the other, in the order they are asked.

    `nodes` is the number of nodes, or a node_config for each; partition-id and num-partitions are added as Flower's
    simulation adds them. Every call of the app starts from global generators (random, numpy, torch) seeded by `seed`,
    the node and how often it was called, and leaves them as they were. An app that raises gives an error reply, as
    with a SuperLink. What a node is sent and sends is copied, so that no node can change another's.

    To be used in a `with` block, which seeds what the server draws and restores it. Raises ConfigError for no node, or
    a message to an unknown one.
    """

    def __init__(
        self, app: ClientApp, nodes: "int | Sequence[Config]", *, run_config: Config | None = None, seed: int = 0
    ) -> None:
        configs: Sequence[Config] = [{}] * nodes if isinstance(nodes, int) else nodes
        if not configs:
            raise ConfigError("a grid needs a node at least", hint="say how many clients there are")
        self.seed = seed
        self._app = app
        self._run: Any = None
        self._calls = dict.fromkeys(range(SERVER + 1, SERVER + 1 + len(configs)), 0)
        self._contexts = {
            node: Context(
                run_id=RUN_ID,
                node_id=node,
                node_config={"partition-id": i, "num-partitions": len(configs), **config},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for i, (node, config) in enumerate(zip(self._calls, configs, strict=True))
        }
        self._replies: dict[str, Message] = {}
        self._left = 0
        self._inside: Any = None

    def __enter__(self) -> Self:
        """Seed the server's side."""
        self._inside = _seeded(self.seed)
        self._inside.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        """Restore what was seeded."""
        self._inside.__exit__(*raised)

    def set_run(self, run: Any) -> None:
        """Keep Flower's description of a run, which nothing here needs."""
        self._run = run

    @property
    def run(self) -> Any:
        """What `set_run` was given."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; they are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have each message answered at once; gives ids for `pull_messages`."""
        found = []
        for message in messages:
            self._left += 1
            found.append(str(self._left))
            self._replies[found[-1]] = self._answer(message)
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that were not pulled before."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies, in the order of the messages; nothing here is ever late."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            raise ConfigError(f"the grid has no node {node}", hint=f"it has {len(self._contexts)} nodes")
        self._calls[node] += 1
        sent = copy.copy(message)
        sent.content = copy.deepcopy(message.content)
        with _seeded(self.seed, node, self._calls[node]):
            try:
                reply = self._app(sent, self._contexts[node])
                if not isinstance(reply, Message):
                    raise TypeError(f"the app answered with {type(reply).__name__}, not with a Message")
                return copy.deepcopy(reply)
            except Exception as raised:  # noqa: BLE001 - whatever a client does, the others go on
                return Message(Error(RAISED, f"{type(raised).__name__}: {raised}"), reply_to=sent)


def run_in_process(
    server: ServerApp,
    client: ClientApp,
    nodes: "int | Sequence[Config]",
    *,
    run_config: Config | None = None,
    seed: int = 0,
) -> Context:
    """Run a Flower app in this process; the same seed gives the same bits on the same machine.

    `run_config` is what pyproject.toml has under tool.flwr.app.config, for both apps. Returns the server's context.
    """
    context = Context(
        run_id=RUN_ID, node_id=SERVER, node_config={}, state=RecordDict(), run_config=dict(run_config or {})
    )
    with InProcessGrid(client, nodes, run_config=run_config, seed=seed) as grid:
        server(grid, context)
    return context


@contextmanager
def _seeded(seed: int, *what: int) -> Iterator[None]:
    """Global generators that depend on the seed and on `what` only, and the identity that messages are sent under."""
    word = int(np.random.SeedSequence([seed, *what]).generate_state(1, np.uint32)[0])
    numpy_state, state = np.random.get_state(), random.getstate()  # noqa: NPY002 - apps draw from it
    with torch.random.fork_rng(devices=[]), _identity(what[0] if what else SERVER):
        random.seed(word)
        np.random.seed(word)  # noqa: NPY002
        torch.manual_seed(word)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def _identity(node: int) -> Iterator[None]:
    """Who sends: Flower's messages ask a private class, which a SuperLink or SuperNode sets; older ones do not."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        yield
        return
    names = {"_task_id": 1, "_run_id": RUN_ID, "_node_id": node}
    before = {name: getattr(TaskIdentity, name, None) for name in names}
    for name, value in names.items():
        setattr(TaskIdentity, name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            setattr(TaskIdentity, name, old)
