"""Robust learning rate: where too few clients agree on a sign, the step is turned round."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import ROUNDING, blocks, clip_factors, clip_notes, norms
from ostiary.federated.verdict import Aggregated, Array, Context, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustLearningRate:
    """The mean of clipped updates, with its sign turned wherever the signs of the updates add up to too little.

    Source: Ozdayi, Kantarcioglu, Gel 2021, Defending against backdoors in federated learning with robust learning
    rate (AAAI; arXiv 2007.03767), eq. 4 and 5. `agreement` is their threshold as a part of the number of clients: of
    n clients |sum of signs| >= agreement n is needed. Updates are clipped to the median length, without which one
    long update ruins the rule.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.rlr",
        summary="turns the step round where the signs of the updates disagree; updates are clipped first",
        paper="Ozdayi et al. 2021, AAAI, arXiv 2007.03767",
        needs=Needs(),
        cost="three passes over the updates",
        deviations=("always clips, to the median length; the paper clips to a fixed length or not at all",),
        blind_spots=("clients of unlike data disagree on most signs: accuracy falls by ten points and more",),
        marks=frozenset({"mechanism"}),
    )

    agreement: Annotated[float, Field(gt=0, le=1)] = 0.4

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are the parts of the parameters in which a client's sign lost."""
        n, d = updates.shape
        lengths = norms(updates)
        bound = float(np.median(lengths))
        factors = clip_factors(lengths, bound)
        weights = context.shares / context.shares.sum()
        update, lost, least = np.empty(d), np.zeros(n), self.agreement * n - ROUNDING
        for part, block in blocks(updates):
            signs = np.sign(block)
            total = signs.sum(0)
            rate = np.where(np.abs(total) >= least, 1.0, -1.0)
            update[part] = rate * ((weights * factors) @ block)
            lost += (signs * np.sign(total) < 0).sum(1)
        return verdict(update, weights, lost / d, notes=clip_notes(factors, bound))
