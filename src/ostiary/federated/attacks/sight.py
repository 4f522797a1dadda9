"""What an attacking client sees, what it may do to its data and to its training, and how attacks are joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from ostiary.core.card import Card
from ostiary.federated.network import Change, Labels, Project
from ostiary.federated.verdict import Array

Images = Array
"""[n, h, w] in [0, 1]."""


@runtime_checkable
class DataPoison(Protocol):
    """Changes the samples that an attacking client trains on, and says what shows the backdoor at test time."""

    card: ClassVar[Card]

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """Poisoned copies of samples of attacker number `member`."""
        ...

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Of test samples those that show the backdoor, and the labels the attacker wants for them."""
        ...


@dataclass(frozen=True, slots=True)
class Sight:
    """What an attacker knows in a round.

    `weights` [d] is the global model, `observed` [d] its last change (None in the first round), `own_gradient` gives
    the gradient of the attacker's unpoisoned samples at `weights`, and `radius` is how long updates of honest
    training are, judged by the attackers' own.
    """

    weights: Array
    observed: Array | None
    own_gradient: Callable[[], Array]
    radius: float


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an attack does to local training: to each gradient, to the weights after each step, to the update."""

    change: Change | None = None
    project: Project | None = None
    finish: Callable[[Array], Array] | None = None


@runtime_checkable
class UpdateAttack(Protocol):
    """Changes the training of an attacking client."""

    card: ClassVar[Card]

    def arm(self, sight: Sight, /) -> Hooks:
        """What to do in this round."""
        ...


def joined(parts: Sequence[Hooks]) -> Hooks:
    """Hooks that apply all of `parts`, in their order."""

    def change(weights: Array, gradient: Array) -> Array:
        for part in parts:
            gradient = gradient if part.change is None else part.change(weights, gradient)
        return gradient

    def project(weights: Array) -> Array:
        for part in parts:
            weights = weights if part.project is None else part.project(weights)
        return weights

    def finish(update: Array) -> Array:
        for part in parts:
            update = update if part.finish is None else part.finish(update)
        return update

    return Hooks(change, project, finish)


def others(x: Images, y: Labels, target: int) -> Images:
    """Copies of the samples whose label is not the target."""
    return np.array(x[y != target])
