"""RFA: the geometric median of the updates."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import gram, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, verdict

LITTLE = 0.5
"""A client whose weight is below this part of its share gets a reason of its own."""


def weiszfeld(products: Array, shares: Array, *, steps: int, nu: float) -> tuple[Array, Array]:
    """Weights [n] of the smoothed geometric median and the distances [n] to it, from inner products [n, n].

    Each step replaces the weights by shares / max(nu, distance), made to add up to 1: alg. 2 of the paper, of which
    every iterate is a mixture of the updates, so that their inner products are all that is needed. It begins at the
    weighted mean.
    """
    weights = shares / shares.sum()
    own = np.diag(products)

    def far(weights: Array) -> Array:
        cross = products @ weights
        return np.sqrt(np.maximum(own - 2 * cross + weights @ cross, 0))

    for _ in range(steps):
        weights = shares / np.maximum(far(weights), nu)
        weights /= weights.sum()
    return weights, far(weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class RFA:
    """The point whose summed distance to all updates is least; one far update moves it little.

    Source: Pillutla, Kakade, Harchaoui 2022, Robust aggregation for federated learning (IEEE TSP; arXiv 1912.13445),
    alg. 2 with its `nu`; the paper takes 3 to 8 `steps`.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.rfa",
        summary="the geometric median of all updates; nobody is refused, the far ones count little",
        paper="Pillutla et al. 2022, IEEE TSP, arXiv 1912.13445",
        needs=Needs(),
        cost="one product of the updates with themselves",
        blind_spots=("updates kept as short as honest ones (PGD) and pulling one way are not far from the median",),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(ge=1)] = 8
    nu: Annotated[float, Field(gt=0)] = 1e-6

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are distances to the median."""
        weights, far = weiszfeld(gram(updates), context.shares, steps=self.steps, nu=self.nu)
        notes = {
            int(i): Reason("OS522", f"far from the median: counts for {weights[i]:.2%} in place of {share:.2%}")
            for i, share in enumerate(context.shares / context.shares.sum())
            if weights[i] < LITTLE * share
        }
        return verdict(weighted(updates, weights), weights, far, notes=notes)
