"""DeepSight: looks into the last layer of each update and at what the models answer to noise."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.federated.geometry import clip_factors, clip_notes, clusters, cosines, gram, norms, weighted
from ostiary.federated.verdict import (
    Aggregated,
    Array,
    Context,
    Head,
    Probe,
    Reason,
    at_least,
    generator,
    nobody,
    verdict,
)

SMALLEST = 2
"""Clients in a cluster, at least."""


def energies(updates: Array, head: Head) -> Array:
    """NEUP [n, classes]: the squared summed magnitude of each class's update in the last layer, as parts of 1."""
    weight = np.asarray(updates[:, head.weight], np.float64).reshape(len(updates), head.classes, -1)
    energy = (np.abs(updates[:, head.bias]) + np.abs(weight).sum(2)) ** 2
    return np.asarray(energy / np.maximum(energy.sum(1, keepdims=True), 1e-300))


def exceedings(energy: Array) -> NDArray[np.int64]:
    """TE [n]: classes whose energy passes max(0.01, 1 / classes) of the client's greatest; few mean like labels."""
    classes = energy.shape[1]
    return np.asarray((energy > max(0.01, 1 / classes) * energy.max(1, keepdims=True)).sum(1), np.int64)


def answer_ratios(updates: Array, weights: Array, probe: Probe, inputs: Array) -> Array:
    """DDif [n, classes]: how much likelier each class is to a client's model than to the global one, on noise."""
    base = np.maximum(probe(weights, inputs), 1e-12)
    return np.stack([(probe(weights + update, inputs) / base).mean(0) for update in updates])


def apart(labels: NDArray[np.int64]) -> Array:
    """Distances [n, n] of a clustering: 0 within a cluster, 1 otherwise; a row in no cluster is alone."""
    same = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
    np.fill_diagonal(same, True)
    return np.asarray(~same, np.float64)


def straight(points: Array) -> Array:
    """Euclidean distances [n, n] of points [n, k]."""
    return np.asarray(np.sqrt(((points[:, None] - points[None, :]) ** 2).sum(2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSight:
    """Three clusterings of the clients vote; clusters that hold too many suspicious updates are refused whole.

    Source: Rieger, Nguyen, Miettinen, Sadeghi 2022, DeepSight (NDSS; arXiv 2201.00763), alg. 1 to 3. An update is
    suspicious when its threshold exceedings are at most half of the median; a cluster with at least `tau` of them is
    refused. Accepted updates are clipped to the median length of all and averaged alike. A client in no cluster
    stands for itself.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.deepsight",
        summary="refuses clusters of clients whose last layers were trained towards few labels",
        paper="Rieger et al. 2022, NDSS, arXiv 2201.00763",
        needs=Needs(),
        cost="runs every client's model on `samples` inputs of noise, three times",
        blind_spots=(
            "poison mixed with samples of all labels: exceedings look as usual",
            "clients of few labels by nature are refused with the attackers",
        ),
        marks=frozenset({"mechanism"}),
    )

    samples: Annotated[int, Field(ge=1)] = 20_000
    draws: Annotated[int, Field(ge=1)] = 3
    tau: Annotated[float, Field(gt=0, le=1)] = 1 / 3

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round; scores are the suspicious part of a client's cluster.

        Raises NotMet below 3 clients, or where the context has no `head` or `probe`.
        """
        at_least(3, context, self.card.id)
        if context.head is None or context.probe is None:
            raise NotMet(
                "'deepsight' needs the last layer and a way to run the model", hint="give the context head and probe"
            )
        energy = energies(updates, context.head)
        exceeding = exceedings(energy)
        suspicious = exceeding <= np.median(exceeding) / 2
        labels = self._clusters(updates, energy, context, context.probe, context.head, run)
        share = np.array(
            [
                suspicious[labels == label].mean() if label >= 0 else float(suspicious[i])
                for i, label in enumerate(labels)
            ]
        )
        bad = share >= self.tau
        refused = {
            int(i): Reason(
                "OS527",
                f"{share[i]:.0%} of its cluster have updates towards few labels (its own: {exceeding[i]} of "
                f"{energy.shape[1]} classes, median {np.median(exceeding):g})",
            )
            for i in np.flatnonzero(bad)
        }
        if bad.all():
            return nobody(context, share, refused, "every cluster is suspicious", run=run)
        lengths = norms(updates)
        bound = float(np.median(lengths))
        factors = clip_factors(lengths, bound)
        weights = ~bad / (~bad).sum()
        return verdict(weighted(updates, weights * factors), weights, share, refused, clip_notes(factors, bound))

    def _clusters(
        self, updates: Array, energy: Array, context: Context, probe: Probe, head: Head, run: Run
    ) -> NDArray[np.int64]:
        """The final clusters: of the mean of the distances that the three clusterings give."""
        rng = generator(self.card.id, context, run)
        by_answers = []
        for _ in range(self.draws):
            inputs = rng.uniform(size=(self.samples, *context.input_shape))
            ratios = answer_ratios(updates, context.weights, probe, inputs)
            by_answers.append(apart(clusters(straight(ratios), smallest=SMALLEST, single=False)))
        by_bias = apart(
            clusters(np.maximum(1 - cosines(gram(updates[:, head.bias])), 0), smallest=SMALLEST, single=False)
        )
        by_energy = apart(clusters(straight(energy), smallest=SMALLEST, single=False))
        mean = (np.mean(by_answers, 0) + by_bias + by_energy) / 3
        return clusters(mean, smallest=SMALLEST, single=False)
