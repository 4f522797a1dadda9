"""Which replies of a round may reach a rule at all. An offending reply is dropped with a reason; the round goes on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ostiary.federated.geometry import norms
from ostiary.federated.layout import Layout, Tensors
from ostiary.federated.verdict import Array, Reason

NAMED = 3
"""Tensors that a reason names; a reply may add any number of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client sends: its whole tensors after local training, on how many examples it says, and for which round.

    Nothing in it is to be believed.
    """

    node: str
    tensors: Tensors
    examples: float = 1.0
    round: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The replies that may be aggregated, and why others may not.

    `updates` [n, d] are differences to the global model, `shares` [n] add up to 1 where n > 0.
    """

    replies: tuple[Reply, ...]
    updates: Array
    shares: Array
    refused: dict[str, Reason]
    notes: dict[str, Reason]

    @property
    def clients(self) -> tuple[str, ...]:
        """The nodes of the replies."""
        return tuple(reply.node for reply in self.replies)


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """What a reply must be like.

    An update longer than `longest` times the median length of the round's updates is refused. `weigh` says what a
    client counts for: all alike, or by the examples it claims, of which no more than `most` times the median claim
    are believed.
    """

    longest: Annotated[float, Field(gt=1)] = 10.0
    weigh: Literal["equal", "claimed"] = "equal"
    most: Annotated[float, Field(ge=1)] = 3.0

    def admit(self, replies: Sequence[Reply], model: Tensors, layout: Layout, number: int) -> Admitted:
        """Sort the replies of round `number` to the global `model`."""
        refused: dict[str, Reason] = {}
        counts = Counter(reply.node for reply in replies)
        sound = []
        for reply in replies:
            if counts[reply.node] > 1:
                refused[reply.node] = Reason("OS507", f"{counts[reply.node]} replies came under this name")
            elif (reason := _unfit(reply, model, layout, number, by_claim=self.weigh == "claimed")) is not None:
                refused[reply.node] = reason
            else:
                sound.append(reply)
        base = layout.flat(model)
        # Overflow is no error here: what is not finite after the subtraction is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            updates = np.array([layout.flat(reply.tensors) - base for reply in sound]).reshape(len(sound), len(base))
            lengths = norms(updates)
        cap = self.longest * float(np.median(lengths)) if len(lengths) else 0.0
        kept = []
        for i, (reply, length) in enumerate(zip(sound, lengths, strict=True)):
            if length <= cap and np.isfinite(length):
                kept.append(i)
            else:
                refused[reply.node] = Reason("OS505", f"its update is {length:.3g} long, at most {cap:.3g} is allowed")
        admitted = tuple(sound[i] for i in kept)
        shares, notes = self.shares(admitted)
        return Admitted(admitted, updates[kept], shares, refused, notes)

    def shares(self, replies: tuple[Reply, ...]) -> tuple[Array, dict[str, Reason]]:
        """What each reply counts for [n], adding up to 1, and a note for each whose claim was not believed."""
        if not replies:
            return np.zeros(0), {}
        if self.weigh == "equal":
            return np.full(len(replies), 1 / len(replies)), {}
        claims = np.array([reply.examples for reply in replies], np.float64)
        cap = self.most * float(np.median(claims))
        notes = {
            reply.node: Reason("OS509", f"claims {reply.examples:g} examples, {cap:g} are believed")
            for reply in replies
            if reply.examples > cap
        }
        believed = np.minimum(claims, cap)
        return believed / believed.sum(), notes


def _unfit(reply: Reply, model: Tensors, layout: Layout, number: int, *, by_claim: bool) -> Reason | None:
    """Why a reply cannot be compared with the model at all, None where it can."""
    if reply.round != number:
        return Reason("OS508", f"it answers round {reply.round}, this is round {number}")
    if not isinstance(reply.tensors, Mapping):
        return Reason("OS502", f"sends {type(reply.tensors).__name__:.60} in place of tensors")
    if reply.tensors.keys() != model.keys():
        lacks, more = sorted(model.keys() - reply.tensors.keys()), sorted(reply.tensors.keys() - model.keys())
        told = [f"lacks '{name}'" for name in lacks] + [f"adds {name!r:.60}" for name in more]
        rest = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
        return Reason("OS502", "; ".join(told[:NAMED] + rest))
    for name, tensor in reply.tensors.items():
        shape = layout.trained.get(name, layout.statistics.get(name))
        if not isinstance(tensor, np.ndarray) or tensor.dtype != layout.dtypes[name]:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            return Reason("OS504", f"'{name}' is {kind!s:.60}, the model has {layout.dtypes[name]}")
        if tensor.shape != shape:
            return Reason("OS503", f"'{name}' has shape {tensor.shape}, the model has {shape}")
    for name, tensor in reply.tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            return Reason("OS501", f"'{name}' holds values that are not finite")
    return unfit_claim(reply) if by_claim else None


def unfit_claim(reply: Reply) -> Reason | None:
    """Why what a reply claims cannot be a number of examples, None where it can."""
    claim: object = reply.examples
    try:
        if isinstance(claim, Real) and math.isfinite(claim) and float(claim) > 0:
            return None
    except OverflowError:  # a whole number that no float holds
        return Reason("OS506", "claims more examples than can be counted")
    return Reason("OS506", f"claims {claim!s:.60} examples")
