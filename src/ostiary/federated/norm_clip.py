"""Norm clipping: no update counts for more than its bound, and noise may hide what is left."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import clip_factors, clip_notes, norms, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, generator, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class NormClip:
    """Updates longer than `bound` are made as long as it; then the weighted mean, then Gaussian noise.

    Source: Sun, Kairouz, Suresh, McMahan 2019, Can you really backdoor federated learning? (arXiv 1911.07963), sec. 5.
    Without a `bound` it is the median length of the round's updates. `noise` is the standard deviation per parameter
    as a part of the bound ("weak differential privacy", which states no budget).
    """

    card: ClassVar[Card] = Card(
        id="aggregate.norm-clip",
        summary="the mean of updates that are clipped to one length, with noise if wanted",
        paper="Sun et al. 2019, arXiv 1911.07963",
        needs=Needs(),
        cost="two passes over the updates",
        deviations=("the bound is the median length of the round where none is given; the paper fixes one",),
        blind_spots=("an attacker who keeps to the bound is not hindered",),
        marks=frozenset({"mechanism"}),
    )

    bound: Annotated[float, Field(gt=0)] | None = None
    noise: Annotated[float, Field(ge=0)] = 0.0

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are lengths."""
        lengths = norms(updates)
        bound = float(np.median(lengths)) if self.bound is None else self.bound
        factors = clip_factors(lengths, bound)
        weights = context.shares / context.shares.sum()
        update = weighted(updates, weights * factors)
        if self.noise:
            update += generator(self.card.id, context, run).normal(0, self.noise * bound, update.shape)
        return verdict(update, weights, lengths, notes=clip_notes(factors, bound))
