"""What attacks share that control the training or edit the weights: their truth, and their share of a batch."""

import math
from typing import ClassVar, Protocol, runtime_checkable

import torch

from ostiary.attacks.triggers import Trigger
from ostiary.attacks.truth import Truth
from ostiary.core.card import Card
from ostiary.core.errors import DataError
from ostiary.core.execute import params_of
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@runtime_checkable
class ModelPoisoning(Protocol):
    """The fields that every such attack has."""

    card: ClassVar[Card]

    @property
    def target(self) -> int:
        """The class the attacker wants."""
        ...

    @property
    def rate(self) -> float:
        """The share of each batch that carries the trigger."""
        ...


def check_target(attack: ModelPoisoning, clean: ImageSet) -> None:
    """Raise DataError when the target is none of the classes."""
    if attack.target >= len(clean.classes):
        raise DataError(f"target {attack.target} is outside the classes 0..{len(clean.classes) - 1}")


def truth_of(attack: ModelPoisoning, clean: ImageSet, trigger: Trigger, *, run: Run) -> Truth:
    """The truth of a model that `attack` made: everything with the trigger goes to the target, no set is poisoned."""
    return Truth(
        attack=attack.card.id,
        params=params_of(attack),
        mapping="all-to-one",
        target=attack.target,
        source=0,
        classes=tuple(clean.classes),
        seed=run.seed,
        rate=attack.rate,
        source_digest=clean.digest,
        poisoned={},
        covers=(),
        trigger=trigger,
    )


def count_of(share: float, n: int, rng: torch.Generator) -> int:
    """How many of `n` samples a share is: rounded up or down at random, so that it is met on average."""
    return math.floor(share * n + float(torch.rand((), generator=rng)))
