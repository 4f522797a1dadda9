"""FoolsGold: clients whose updates go the same way over and over are taken for one."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import cosines, gram, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, at_least, nobody, verdict

NEARLY_ONE = 0.99
"""Of the best client, whose logit would be infinite: as in the authors' code."""


def foolsgold_weights(cosine: Array, kappa: float) -> Array:
    """The weights [n] in [0, 1] of clients whose summed updates have these cosines [n, n]; alg. 1 of the paper.

    Of a pair the one that is less like everybody else is pardoned: its cosine shrinks by the ratio of the two
    clients' greatest cosines.
    """
    others = cosine - np.eye(len(cosine))
    greatest = np.maximum(others.max(1), 1e-12)
    pardon = np.minimum(1.0, greatest[:, None] / greatest[None, :])
    alpha = np.clip(1 - (others * pardon).max(1), 0, 1)
    if not alpha.any():
        return np.zeros(len(cosine))
    alpha = np.minimum(alpha / alpha.max(), NEARLY_ONE)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(kappa * (np.log(alpha / (1 - alpha)) + 0.5), 0, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class FoolsGold:
    """Sums each client's updates over the rounds and counts those little that are like another's.

    Source: Fung, Yoon, Beschastnikh 2020, The limitations of federated learning in sybil settings (RAID; arXiv
    1808.04866), alg. 1. The last layer alone is looked at where the context tells it (the paper's indicative
    features).
    """

    card: ClassVar[Card] = Card(
        id="aggregate.foolsgold",
        summary="counts clients little whose updates, summed over the rounds, are like another client's",
        paper="Fung et al. 2020, RAID, arXiv 1808.04866",
        needs=Needs(),
        cost="one product of the last layer's updates; keeps one sum for each client",
        deviations=("the weighted mean, where the paper sums: else the step grows with the number of clients",),
        blind_spots=(
            "a single attacker, or attackers who differ from one another (DBA)",
            "clients of like data: honest clients are then refused",
            "no bound on lengths: one long update ruins it",
        ),
        marks=frozenset({"mechanism"}),
    )

    kappa: Annotated[float, Field(gt=0)] = 1.0

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are 1 - weight. Raises NotMet below 2 clients."""
        at_least(2, context, self.card.id)
        looked_at = updates if context.head is None else updates[:, context.head.weight]
        sums = context.memory.setdefault(self.card.id, {})
        for name, update in zip(context.clients, looked_at, strict=True):
            sums[name] = sums.get(name, 0) + np.asarray(update, np.float64)
        alpha = foolsgold_weights(cosines(gram(np.stack([sums[name] for name in context.clients]))), self.kappa)
        refused = {
            int(i): Reason("OS525", "its updates so far go the same way as another client's")
            for i in np.flatnonzero(alpha == 0)
        }
        if not alpha.any():
            return nobody(context, 1 - alpha, refused, "all clients go the same way as another", run=run)
        weights = alpha / alpha.sum()
        return verdict(weighted(updates, weights), weights, 1 - alpha, refused)
