"""Neurotoxin: the attacker leaves alone the parameters that honest clients change most. Two published variants."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Hooks, Sight
from ostiary.federated.verdict import Array

PAPER = "Zhang et al. 2022, ICML, arXiv 2206.10341"


def outside_top(magnitude: Array, share: float) -> Array:
    """A mask [d] that is 0 on the `share` of the parameters with the largest magnitude, 1 elsewhere."""
    mask = np.ones_like(magnitude)
    mask[np.argsort(-np.abs(magnitude), kind="stable")[: round(share * len(magnitude))]] = 0.0
    return mask


def masked(mask: Array) -> Hooks:
    """Hooks that keep the gradient to a mask."""
    return Hooks(change=lambda weights, gradient: gradient * mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class Neurotoxin:
    """As in the paper: the `top` share of the parameters in the last observed aggregate is left alone.

    Source: Zhang, Panda, Song, Yang, Mahoney, Mittal, Gonzalez, Ramchandran 2022, Neurotoxin (ICML; arXiv 2206.10341),
    alg. 1.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.neurotoxin",
        summary="leaves alone the parameters that moved most in the last round",
        paper=PAPER,
        needs=Needs(),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    top: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def arm(self, sight: Sight, /) -> Hooks:
        """Mask the gradient; nothing in the first round, of which no aggregate was seen."""
        return Hooks() if sight.observed is None else masked(outside_top(sight.observed, self.top))


@dataclass(frozen=True, kw_only=True, slots=True)
class NeurotoxinGradient:
    """As in the released code: the mask comes from the gradient of the attacker's own unpoisoned samples.

    Source: as `client-attack.neurotoxin`; `kept` is the code's gradmask_ratio, 0.95 to 0.99.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.neurotoxin-gradient",
        summary="leaves alone the parameters with the largest gradient on its own unpoisoned samples",
        paper=PAPER,
        needs=Needs(),
        cost="one gradient of its own samples",
        deviations=("the variant of the authors' code, which the paper does not describe",),
        marks=frozenset({"mechanism"}),
    )

    kept: Annotated[float, Field(gt=0, lt=1)] = 0.95

    def arm(self, sight: Sight, /) -> Hooks:
        """Mask the gradient."""
        return masked(outside_top(sight.own_gradient(), 1 - self.kept))
