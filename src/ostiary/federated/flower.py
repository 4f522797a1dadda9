"""A guard for Flower: wraps any strategy of its Message API, and lets it see admitted and judged replies only.

Needs the extra `federated`; nothing else of the package imports it. Rules need every client's update in plain numbers,
so that secure aggregation ends a run with a clear error.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, MissingExtra, ModelError
from ostiary.core.run import Run
from ostiary.federated.admission import Admission, Reply, unfit_claim
from ostiary.federated.layout import Layout, Tensors
from ostiary.federated.record import Judged
from ostiary.federated.rounds import Round, Server, without_update
from ostiary.federated.verdict import Array, Reason

try:
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy
except ImportError as error:
    raise MissingExtra("this needs Flower", hint="pip install 'ostiary[federated]'") from error

from ostiary.federated.flower_replies import Read, read_replies

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""How PyTorch calls what normalisation layers count."""
EXAMPLES = "num-examples"
LOST = 1e-3
"""In filter mode: how far, beside the update, the rule's sum may lie from the mean of what is handed on."""

Root: TypeAlias = Callable[[ArrayRecord], ArrayRecord]
"""Trains the model given on trusted samples, as a client does on its own."""

_log = logging.getLogger("flwr")


def tensors_of(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    """The tensors of the server's own record; those of clients go through `read_replies`."""
    return {name: array.numpy() for name, array in arrays.items()}


def arrays_of(tensors: Tensors) -> ArrayRecord:
    """The record of tensors."""
    return ArrayRecord({name: FlowerArray(np.asarray(tensor)) for name, tensor in tensors.items()})


class BackdoorGuard(Strategy):  # type: ignore[misc] # Flower is an extra that mypy does not read
    """Admission and a rule in front of another strategy.

    `strategy` is any strategy that averages tensors: it chooses the clients and makes the next model. `rule` is the
    name of a rule (`ostiary methods --kind aggregate`) or a rule. With mode `replace` each accepted reply carries what
    the rule made of all of them, so that any average of them is that: FedAvg takes it as it is, FedAdam steps
    towards it. With mode `filter` accepted replies keep their tensors and weigh what the rule says; what a rule does
    beyond refusing and weighing is lost then (caution OS938), which is all of it for rules that refuse nobody.

    `statistics` names tensors that are no part of distances; None = the running statistics of PyTorch's layers and
    all tensors of integers. They are averaged over the accepted clients in both modes, whatever the strategy does.
    `root` trains on trusted samples of the server's own, for rules that use them; `probe`, `input_shape` and `head`
    describe the model to rules that look into it (`Server` says how).

    `rounds` has what each round decided of every client that was asked or answered, without the updates themselves;
    `on_round` is given each round with them and the models around it; `dropped_evaluations` has the replies to
    evaluations that were dropped, by round. Raises ConfigError for an unknown rule or mode.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        rule: Any = "guard",
        mode: Literal["replace", "filter"] = "replace",
        admission: Admission | None = None,
        statistics: Collection[str] | None = None,
        root: Root | None = None,
        probe: Callable[[ArrayRecord, Array], Array] | None = None,
        input_shape: tuple[int, ...] = (),
        head: tuple[str, str] | None = None,
        seed: int = 0,
        on_round: Callable[[Judged], None] | None = None,
    ) -> None:
        if mode not in ("replace", "filter"):
            raise ConfigError(f"the guard has no mode '{mode}'", hint="replace or filter")
        if not isinstance(strategy, Strategy):
            raise ConfigError(
                f"{type(strategy).__name__} is no strategy of Flower's Message API",
                hint="take one of flwr.serverapp.strategy",
            )
        self.strategy = strategy
        self.mode = mode
        self.rule = make("aggregate", rule) if isinstance(rule, str) else rule
        self.admission = admission or Admission()
        self.statistics = statistics
        self.run = Run(seed=seed)
        self.rounds: list[Round] = []
        self.dropped_evaluations: dict[int, dict[str, Reason]] = {}
        self.on_round = on_round
        self._root, self._probe = root, probe
        self._server = Server({}, self.rule, self.admission, input_shape=input_shape, head=head)
        self._server.root = None if root is None else self._own_update
        self._server.probe = None if probe is None else self._probed
        self._asked: tuple[int, ...] = ()
        self._asked_to_evaluate: tuple[int, ...] = ()

    def summary(self) -> None:
        """Log what guards, and what is guarded."""
        _log.info("\t├──> BackdoorGuard: rule '%s', mode '%s'", self.rule.card.id, self.mode)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global model and who is asked; the strategy chooses."""
        model = tensors_of(arrays)
        self._server.model = model
        self._server.statistics = tuple(statistics_of(model) if self.statistics is None else self.statistics)
        if not self._layout.trained:
            raise ModelError("the model has no trained tensor of floating-point numbers", hint="trees cannot be judged")
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._asked = tuple(message.metadata.dst_node_id for message in messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model, which is the last one where nobody was accepted.

        Raises NotMet where the rule needs what is not there, or replies are all masked by secure aggregation, and
        ModelError where the global model itself is not finite.
        """
        read = read_replies(replies, self._asked, arrays=True)
        key, before, told = self._examples_key(), self._server.model, len(self.run.cautions)
        sent = [Reply(node, read.tensors[node], read.claim(node, key), server_round) for node in sorted(read.messages)]
        self._server.number = server_round - 1
        decided = self._server.aggregate(sent, run=self.run)
        decided = replace(decided, refused={**read.refused, **decided.refused})
        metrics = self._delegate(decided, read, before, key) if decided.accepted else None
        if decided.accepted and self._server.model is before:
            decided = replace(decided, verdict=None)
        self._tell(Judged(decided, self.rule, before, self._server.model, tuple(self.run.cautions[told:])))
        return arrays_of(self._server.model), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember who is asked; the strategy chooses."""
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        self._asked_to_evaluate = tuple(message.metadata.dst_node_id for message in messages)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The metrics of the replies that can be compared; None where there are none.

        What clients say of their own accuracy is not to be believed, and no rule uses it.
        """
        read = read_replies(replies, self._asked_to_evaluate, arrays=False)
        key = self._examples_key()
        sent = [Reply(node, {}, read.claim(node, key), server_round) for node in sorted(read.messages)]
        if self.admission.weigh == "claimed":
            unfit = {reply.node: reason for reply in sent if (reason := unfit_claim(reply)) is not None}
            read.refused |= unfit
            sent = [reply for reply in sent if reply.node not in unfit]
        if read.refused:
            self.dropped_evaluations[server_round] = read.refused
            for node, reason in read.refused.items():
                _log.warning("round %d: evaluation of %s dropped: %s %s", server_round, node, reason.code, reason.text)
        shares, _ = self.admission.shares(tuple(sent))
        messages = [
            read.rewritten(reply.node, None, key, float(share)) for reply, share in zip(sent, shares, strict=True)
        ]
        return self.strategy.aggregate_evaluate(server_round, messages) if messages else None

    @property
    def _layout(self) -> Layout:
        return Layout.of(self._server.model, self._server.statistics)

    def _delegate(self, decided: Round, read: Read, before: dict[str, np.ndarray], key: str) -> MetricRecord | None:
        """Let the strategy make the next model of the accepted replies; the server's model is that afterwards."""
        server, verdict = self._server, decided.verdict
        judged = server.model
        server.model = before
        weights = {} if verdict is None else dict(zip(decided.clients, verdict.weights, strict=True))
        accepted = sorted(decided.accepted)
        if self.mode == "filter":
            self._look_for_loss(decided.number, judged, before, read, {node: weights[node] for node in accepted})
        shared = arrays_of(judged)
        messages = []
        for node in accepted:
            # In the model's order: some strategies go by it. A record of its own each: some strategies empty them.
            source = shared if self.mode == "replace" else read.arrays(node)
            own = ArrayRecord({name: source[name] for name in before})
            messages.append(read.rewritten(node, own, key, float(weights[node])))
        arrays, metrics = self.strategy.aggregate_train(decided.number, messages)
        made = None if arrays is None else tensors_of(arrays)
        if made is None or {n: t.shape for n, t in made.items()} != {n: t.shape for n, t in before.items()}:
            self.run.caution(
                "OS939", f"round {decided.number}: {type(self.strategy).__name__} made no model of the replies"
            )
            return None
        layout = self._layout
        # Strategies average counters to fractions and return wider types than they were given: neither may stay.
        with np.errstate(over="ignore", invalid="ignore"):
            model = {n: judged[n] if n in layout.statistics else made[n].astype(layout.dtypes[n]) for n in before}
        if all(np.isfinite(tensor).all() for tensor in model.values()):
            server.model = model
        else:
            self.run.caution("OS929", f"round {decided.number}: the global model stays as it is")
        return metrics

    def _look_for_loss(
        self, number: int, judged: Tensors, before: Tensors, read: Read, weights: dict[str, float]
    ) -> None:
        """Caution where the weighted mean of what is handed on is not what the rule made of it."""
        layout = self._layout
        old, new = layout.flat(before), layout.flat(judged)
        mean = np.zeros_like(old)
        for node, weight in weights.items():
            mean += weight * layout.flat(read.tensors[node])
        if np.linalg.norm(new - mean) > LOST * max(np.linalg.norm(new - old), np.linalg.norm(mean - old)):
            self.run.caution("OS938", f"round {number}: '{self.rule.card.id}' makes more of replies than mode filter")

    def _examples_key(self) -> str:
        """How the strategy calls the number of examples; wrappers of strategies keep theirs in `strategy`."""
        inner: Any = self.strategy
        while inner is not None and not hasattr(inner, "weighted_by_key"):
            inner = getattr(inner, "strategy", None)
        return EXAMPLES if inner is None else str(inner.weighted_by_key)

    def _own_update(self, weights: Array) -> Array:
        assert self._root is not None  # noqa: S101 - set together with the server's root
        return self._layout.flat(tensors_of(self._root(arrays_of(self._server.model)))) - weights

    def _probed(self, weights: Array, inputs: Array) -> Array:
        assert self._probe is not None  # noqa: S101 - set together with the server's probe
        return self._probe(arrays_of({**self._server.model, **self._layout.tensors(weights)}), inputs)

    def _tell(self, judged: Judged) -> None:
        done = judged.done
        self.rounds.append(without_update(done))
        for node, reason in sorted(done.reasons.items()):
            if node not in done.accepted:
                _log.warning("round %d: %s dropped: %s %s", done.number, node, reason.code, reason.text)
        for caution in judged.cautions:
            _log.warning("%s %s", caution.code, caution.text)
        if self.on_round is not None:
            self.on_round(judged)


def statistics_of(model: Tensors) -> list[str]:
    """The tensors that are taken for statistics where none are named."""
    return [name for name, tensor in model.items() if name.split(".")[-1] in STATISTICS or tensor.dtype.kind != "f"]
