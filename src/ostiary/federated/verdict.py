"""What an aggregation rule is given beside the updates, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run

Array: TypeAlias = NDArray[np.float64]
"""Updates [n, d], vectors [d], scores [n]."""

Probe: TypeAlias = Callable[[Array, Array], Array]
"""Probabilities [m, classes] of the model with flat weights [d] for m inputs."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the last layer lies in a flat update: `weight` covers [classes, features], `bias` [classes]."""

    weight: slice
    bias: slice

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.bias.stop - self.bias.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a server knows in a round. No rule is told how many clients attack, or which.

    `clients` [n] are names that stay the same from round to round, `weights` [d] the global model, `shares` [n] what
    each client would count for in a plain average (they add up to 1). `memory` is one dict for all rounds of a run, in
    which a rule keeps what it must remember under its own id. `root` gives the server's own update from trusted
    samples, `probe` runs the model; `head` and `input_shape` describe it. Rules that need what is not there raise
    NotMet.
    """

    clients: tuple[str, ...]
    weights: Array
    shares: Array
    round: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    root: Callable[[], Array] | None = None
    probe: Probe | None = None
    input_shape: tuple[int, ...] = ()
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a client was accepted, changed or refused: a stable code (none where nothing was remarkable) and a text."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The verdict of a rule on one round.

    `update` [d] is to be added to the global model. `weights` [n] say what part each client has in it and add up to 1;
    they are all 0, and so is the update, where nobody was accepted. `scores` [n]: higher = more suspicious, NaN = not
    scored. There is one reason for each client.
    """

    update: Array
    weights: Array
    accepted: NDArray[np.bool_]
    scores: Array
    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        """Raises ModelError where the parts do not fit together."""
        n = len(self.reasons)
        if not (self.weights.shape == self.accepted.shape == self.scores.shape == (n,)):
            raise ModelError("a verdict must have a weight, a score and a reason for each client")
        if not np.isfinite(self.update).all():
            raise ModelError("an aggregated update is not finite", hint="updates pass admission before any rule")
        if self.weights[~self.accepted].any():
            raise ModelError("a refused client counts in a verdict")


def verdict(
    update: Array,
    weights: Array,
    scores: Array,
    refused: Mapping[int, Reason] | None = None,
    notes: Mapping[int, Reason] | None = None,
) -> Aggregated:
    """An `Aggregated` in which all clients are accepted but those `refused`; `notes` are reasons of accepted ones."""
    refused, notes = refused or {}, notes or {}
    n = len(scores)
    accepted = np.array([i not in refused for i in range(n)], bool)
    plain = Reason("", "accepted")
    reasons = tuple(refused.get(i) or notes.get(i) or plain for i in range(n))
    return Aggregated(update, np.where(accepted, weights, 0.0), accepted, scores, reasons)


def nobody(context: Context, scores: Array, refused: Mapping[int, Reason], why: str, *, run: Run) -> Aggregated:
    """The verdict of a rule that accepts nobody: the global model stays, with caution OS928."""
    run.caution("OS928", f"round {context.round}: {why}; the global model stays as it is")
    n = len(scores)
    return verdict(np.zeros_like(context.weights), np.zeros(n), scores, refused)


class TooFew(NotMet):
    """A round has fewer clients than the rule needs."""


def at_least(least: int, context: Context, rule: str) -> None:
    """Raise TooFew, a NotMet, where a round has fewer clients than a rule needs."""
    n = len(context.clients)
    if n < least:
        raise TooFew(
            f"'{rule}' needs {least} clients in a round, there are {n}",
            hint="ask more clients, or wait for those that are late",
        )


def generator(rule: str, context: Context, run: Run) -> np.random.Generator:
    """A generator that depends on the seed of the run, the rule and the round only."""
    return np.random.default_rng([run.seed, context.round, *rule.encode()])


def own_update(context: Context) -> Array:
    """The server's own update; raises NotMet where it has no trusted samples, ModelError for one that does not fit."""
    if context.root is None:
        raise NotMet("this rule needs an update of the server's own", hint="give it trusted samples, a hundred or so")
    own = np.asarray(context.root(), np.float64)
    if own.shape != context.weights.shape or not np.isfinite(own).all():
        raise ModelError("the server's own update does not fit the model, or is not finite")
    return own
