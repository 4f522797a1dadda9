"""The guard that is taken where none is named: trimmed, clipped, and beside it what the server learns by itself."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import ROUNDING, blocks, clip_factors, clip_notes, norms
from ostiary.federated.verdict import Aggregated, Array, Context, at_least, own_update, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """The mean of the middle values of clipped updates, times `gain`, and a part of the server's own update.

    Source: none; ours, of known parts. Updates are clipped to the median length of the round. Of each parameter the
    `trim` share of the values at either end is left out (Yin et al. 2018, arXiv 1803.01498), which takes the pull of a
    minority but learns more slowly where clients differ; `gain` makes up for that. Where the server has trusted
    samples (`context.root`), `trusted` times its own update, no longer than the median, is added: it keeps the
    classes that few clients have. The sum is no longer than `longest` times the median update: where clients agree, a
    longer step swings to and fro. Nobody is refused, so that honest clients of rare data lose no vote; a client's
    weight is the share of the parameters in which its value is among those averaged.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.guard",
        summary="the default: a trimmed mean of clipped updates, beside the server's own update if it has one",
        paper="none: ours",
        needs=Needs(),
        cost="two passes over the updates and one sort of each parameter's values; trusted samples: one training",
        blind_spots=(
            "attackers that are more than `trim` of the clients",
            "without trusted samples, clients of very unlike data: attackers are no fewer than those who know a class",
        ),
        marks=frozenset({"mechanism"}),
    )

    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.3
    gain: Annotated[float, Field(gt=0)] = 1.5
    trusted: Annotated[float, Field(ge=0)] = 0.5
    longest: Annotated[float, Field(gt=0)] = 0.5

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are the share of the parameters in which a client's value was left out.

        Raises NotMet below 4 clients, where nothing is left to trim.
        """
        at_least(4, context, self.card.id)
        n, d = updates.shape
        cut = max(1, int(self.trim * n + ROUNDING))
        lengths = norms(updates)
        bound = float(np.median(lengths))
        factors = clip_factors(lengths, bound)
        update, kept = np.empty(d), np.zeros(n)
        for part, block in blocks(updates):
            np.multiply(block, factors[:, None], out=block)
            update[part], among = middle(block, cut)
            kept += among
        update *= self.gain
        if context.root is not None and self.trusted:
            own = own_update(context)
            update += self.trusted * own * clip_factors(np.array([np.linalg.norm(own)]), bound)[0]
        update *= clip_factors(np.array([np.linalg.norm(update)]), self.longest * bound)[0]
        return verdict(update, kept / kept.sum(), 1 - kept / d, notes=clip_notes(factors, bound))


def middle(values: Array, cut: int) -> tuple[Array, Array]:
    """The mean [d] of each parameter's values [n, d] without the `cut` least and greatest, and how often each counts.

    The count [n] is of the parameters in which a client's value is among those averaged; of several that are equal
    where the cut falls, each counts for its share.
    """
    rows = np.ascontiguousarray(values.T)
    inner = np.sort(rows, axis=1)[:, cut : len(values) - cut]
    among = (rows >= inner[:, :1]) & (rows <= inner[:, -1:])
    count = among.sum(0).astype(np.float64)
    tied = np.flatnonzero(among.sum(1) > inner.shape[1])
    for edge in (0, -1):
        alike = rows[tied] == inner[tied][:, edge, None]
        # Where low and high are one value, the second turn finds the shares right already.
        share = (inner[tied] == inner[tied][:, edge, None]).sum(1) / alike.sum(1)
        differ = (edge == 0) | (inner[tied][:, 0] < inner[tied][:, -1])
        count -= ((1 - share) * differ) @ alike
    return inner @ np.full(inner.shape[1], 1 / inner.shape[1]), count
