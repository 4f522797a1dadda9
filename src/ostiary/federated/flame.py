"""FLAME: the largest group of like directions, clipped, with noise; on whole weights or on updates."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import clip_factors, clip_notes, clusters, cosines, gram, times, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, at_least, generator, nobody, verdict

LEAST = 3
PAPER = "Nguyen et al. 2022, USENIX Security, arXiv 2101.02281"


def flame(
    rule: str, updates: Array, products: Array, directions: Array, noise: float, context: Context, run: Run
) -> Aggregated:
    """FLAME with the inner products [n, n] of updates and of what is clustered; scores are mean distances to a cluster.

    Clusters of at least n // 2 + 1 clients by cosine distance; accepted updates are clipped to the median length of
    *all* updates and averaged alike; noise of `noise` times that length. Where HDBSCAN puts everybody into no
    cluster, nobody is accepted. Raises NotMet below 3 clients.
    """
    at_least(LEAST, context, rule)
    n = len(updates)
    distances = np.maximum(1 - cosines(directions), 0)
    labels = clusters(distances, smallest=n // 2 + 1, single=True)
    chosen = labels >= 0
    if not chosen.any():
        reason = Reason("OS524", "the directions of this round form no group of more than half of the clients")
        return nobody(
            context, distances.mean(1), dict.fromkeys(range(n), reason), "no majority of like directions", run=run
        )
    scores = distances[:, chosen].mean(1)
    lengths = np.sqrt(np.diag(products))
    bound = float(np.median(lengths))
    factors = clip_factors(lengths, bound)
    weights = chosen / chosen.sum()
    update = weighted(updates, weights * factors)
    if noise:
        update += generator(rule, context, run).normal(0, noise * bound, update.shape)
    refused = {
        int(i): Reason(
            "OS524",
            f"mean cosine distance {scores[i]:.2g} to the majority, which lies within itself at "
            f"{scores[chosen].mean():.2g}",
        )
        for i in np.flatnonzero(~chosen)
    }
    return verdict(update, weights, scores, refused, clip_notes(factors, bound))


@dataclass(frozen=True, kw_only=True, slots=True)
class Flame:
    """FLAME as published: the clients' whole models are clustered by their cosine distance.

    Source: Nguyen et al. 2022, FLAME (USENIX Security; arXiv 2101.02281), alg. 1. `noise` is the paper's lambda for
    images.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.flame",
        summary="averages the majority of like models (HDBSCAN on cosines of weights), clipped, with noise",
        paper=PAPER,
        needs=Needs(),
        cost="one product of the updates with themselves; HDBSCAN on n clients",
        blind_spots=(
            "updates kept as short as honest ones (PGD): it may refuse honest clients in their place",
            "refuses two of five honest clients where nobody attacks",
        ),
        marks=frozenset({"mechanism"}),
    )

    noise: Annotated[float, Field(ge=0)] = 0.001

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round. Raises NotMet below 3 clients."""
        along, products = times(updates, context.weights), gram(updates)
        models = products + along[:, None] + along[None, :] + context.weights @ context.weights
        return flame(self.card.id, updates, products, models, self.noise, context, run)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlameUpdates:
    """FLAME with the cosines of the updates in place of those of the models: another defence.

    Source: as `aggregate.flame`; this form is not in the paper, but in code that carries its name.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.flame-updates",
        summary="FLAME on the directions of updates in place of whole models",
        paper=PAPER,
        needs=Needs(),
        cost="one product of the updates with themselves; HDBSCAN on n clients",
        deviations=("clusters updates, where the paper clusters models",),
        blind_spots=(
            "clients of unlike data: honest updates are then no closer to one another than to the attackers'",
            "refuses two of five honest clients where nobody attacks",
        ),
        marks=frozenset({"mechanism"}),
    )

    noise: Annotated[float, Field(ge=0)] = 0.001

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round. Raises NotMet below 3 clients."""
        products = gram(updates)
        return flame(self.card.id, updates, products, products, self.noise, context, run)
