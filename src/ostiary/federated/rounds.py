"""Rounds of federated learning in one process: admission, a rule, the new global model; seeded and exactly repeatable.

What a client is stays open: a function that takes the global model. Nothing here knows of attacks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from ostiary.core.errors import ModelError
from ostiary.core.run import Run
from ostiary.federated.admission import Admission, Admitted, Reply
from ostiary.federated.layout import Layout, Tensors
from ostiary.federated.verdict import Aggregated, Array, Context, Head, Probe, Reason, TooFew

Client: TypeAlias = Callable[[Tensors, int], Reply | None]
"""Takes the global model and the round's number; None = no reply."""

FAR = 3.0
"""Median deviations within which a client's running statistics are believed."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round decided: a reason for each client that replied, and the verdict of the rule where there is one.

    `clients` are those that were admitted, in the order of the verdict.
    """

    number: int
    clients: tuple[str, ...]
    verdict: Aggregated | None
    refused: dict[str, Reason]
    notes: dict[str, Reason]

    @property
    def accepted(self) -> frozenset[str]:
        """The clients that have a part in the new model."""
        if self.verdict is None:
            return frozenset()
        return frozenset(name for name, yes in zip(self.clients, self.verdict.accepted, strict=True) if yes)

    @property
    def reasons(self) -> dict[str, Reason]:
        """A reason for each client that replied."""
        if self.verdict is None:
            judged = dict.fromkeys(self.clients, Reason("", "admitted; the round was not aggregated"))
        else:
            judged = dict(zip(self.clients, self.verdict.reasons, strict=True))
        remarks = {name: note for name, note in self.notes.items() if not judged[name].code}
        return self.refused | judged | remarks


def without_update(done: Round) -> Round:
    """The round without the update itself, as it is kept for a whole run."""
    return done if done.verdict is None else replace(done, verdict=replace(done.verdict, update=np.zeros(0)))


@dataclass(slots=True)
class Server:
    """A global model, the rule that changes it, and what both remember.

    `root` takes the global model and gives the server's own update from trusted samples, for rules that need one;
    `probe` and `head` describe the model to rules that look into it.
    """

    model: dict[str, np.ndarray]
    rule: Any
    admission: Admission = field(default_factory=Admission)
    statistics: tuple[str, ...] = ()
    root: Callable[[Array], Array] | None = None
    probe: Probe | None = None
    input_shape: tuple[int, ...] = ()
    head: tuple[str, str] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    def aggregate(self, replies: list[Reply], *, run: Run) -> Round:
        """Turn the replies of one round into the next global model.

        The model stays as it is, with a caution, where no reply is admitted (OS926), fewer than the rule needs
        (OS927), or the next model would not be finite (OS929). Raises ModelError where the global model itself is not
        finite, and NotMet where the rule needs what this server has not.
        """
        self.number += 1
        layout = Layout.of(self.model, self.statistics)
        weights = layout.flat(self.model)
        if not np.isfinite(weights).all():
            raise ModelError("the global model is not finite", hint="start from a model that is")
        admitted = self.admission.admit(replies, self.model, layout, self.number)
        verdict = None
        if not admitted.replies:
            run.caution("OS926", f"round {self.number}: no reply was admitted; the global model stays as it is")
        else:
            verdict = self._judge(admitted, weights, layout, run)
        if verdict is not None and verdict.accepted.any():
            # A type of few bits may overflow: that is looked for, not warned of.
            with np.errstate(over="ignore"):
                model = layout.tensors(weights + verdict.update) | self._statistics(admitted, verdict, layout)
            if all(np.isfinite(tensor).all() for tensor in model.values()):
                self.model = model
            else:
                run.caution("OS929", f"round {self.number}: the global model stays as it is")
                verdict = None
        return Round(self.number, admitted.clients, verdict, admitted.refused, admitted.notes)

    def _judge(self, admitted: Admitted, weights: Array, layout: Layout, run: Run) -> Aggregated | None:
        root = self.root
        context = Context(
            clients=admitted.clients,
            weights=weights,
            shares=admitted.shares,
            round=self.number,
            memory=self.memory,
            root=None if root is None else lambda: root(weights),
            probe=self.probe,
            input_shape=self.input_shape,
            head=self._head(layout),
        )
        try:
            verdict: Aggregated = self.rule.aggregate(admitted.updates, context, run=run)
        except TooFew as error:
            run.caution("OS927", f"round {self.number}: {error}; the global model stays as it is")
            return None
        return verdict

    def _head(self, layout: Layout) -> Head | None:
        return None if self.head is None else layout.head(*self.head)

    def _statistics(self, admitted: Admitted, verdict: Aggregated, layout: Layout) -> dict[str, np.ndarray]:
        """Running means and variances, averaged over the accepted clients; counters of integers stay.

        A value further than `FAR` median deviations from the median of the accepted counts as if it lay there: they are
        no part of any rule's distances, and one huge variance would make the model answer one way.
        """
        found = {}
        for name in layout.statistics:
            own = self.model[name]
            if own.dtype.kind == "f":
                stacked = np.stack([reply.tensors[name] for reply in admitted.replies]).astype(np.float64)
                middle = np.median(stacked[verdict.accepted], axis=0)
                room = FAR * np.median(np.abs(stacked[verdict.accepted] - middle), axis=0)
                stacked = np.clip(stacked, middle - room, middle + room)
                share = verdict.weights.reshape(-1, *[1] * own.ndim)
                own = (stacked * share).sum(0).astype(own.dtype)
            found[name] = own
        return found


Watch: TypeAlias = Callable[[Sequence[Reply], Tensors, Round], None]
"""Sees the replies of a round, the global model before it and what was decided; the new model is the server's."""


def run_rounds(
    clients: Mapping[str, Client], server: Server, rounds: int, *, run: Run, watch: Watch | None = None
) -> Iterator[Round]:
    """Ask every client in the order of names, aggregate, and give what each of `rounds` rounds decided.

    Raises OutOfTime once the run's deadline has passed with rounds left.
    """
    for done in range(rounds):
        run.step(done, rounds, "rounds")
        before = server.model
        asked = (clients[name](before, server.number + 1) for name in sorted(clients))
        replies = [reply for reply in asked if reply is not None]
        decided = server.aggregate(replies, run=run)
        if watch is not None:
            watch(replies, before, decided)
        yield decided
