"""FLTrust: the server trains on a few trusted samples of its own, and trusts who goes the same way."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.federated.geometry import SHORTEST, norms, times, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, nobody, own_update, verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class FLTrust:
    """Each update counts by the cosine with the server's own, none below 0, and is made as long as that one.

    Source: Cao, Fang, Liu, Gong 2021, FLTrust (NDSS; arXiv 2012.13995), sec. IV, eq. 1 to 4.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.fltrust",
        summary="weighs updates by their cosine with the server's own update from trusted samples",
        paper="Cao et al. 2021, NDSS, arXiv 2012.13995",
        needs=Needs(),
        cost="the server trains as a client does; then two passes over the updates",
        blind_spots=(
            "trusted samples of another mixture than the clients' cost accuracy",
            "near convergence the server's own update tells less and less",
        ),
        marks=frozenset({"mechanism"}),
    )

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are 1 - cosine. Raises NotMet without `context.root`."""
        own = own_update(context)
        length, lengths = float(np.linalg.norm(own)), norms(updates)
        told = (lengths > SHORTEST) & (length > SHORTEST)
        cosine = np.zeros(len(updates))
        np.divide(times(updates, own), lengths * length, out=cosine, where=told)
        trust = np.maximum(cosine, 0)
        refused = {
            int(i): Reason("OS523", f"its cosine with the server's own update is {cosine[i]:.2f}")
            for i in np.flatnonzero(trust == 0)
        }
        if not trust.any():
            return nobody(context, 1 - cosine, refused, "no update goes the way of the server's own", run=run)
        weights = trust / trust.sum()
        update = weighted(updates, weights * length / np.where(told, lengths, 1.0))
        notes = {
            int(i): Reason("", f"accepted: cosine {cosine[i]:.2f}, weight {weights[i]:.3f}")
            for i in np.flatnonzero(trust)
        }
        return verdict(update, weights, 1 - cosine, refused, notes)
