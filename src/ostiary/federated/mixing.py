"""Mixing before a rule: nearest neighbours and buckets make honest updates of unlike data more alike."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.federated.geometry import gram, weighted
from ostiary.federated.verdict import Aggregated, Array, Context, Reason, at_least, generator, verdict


def neighbours(products: Array, near: int) -> Array:
    """The matrix [n, n] that replaces each update by the mean of its `near` nearest, itself among them."""
    own = np.diag(products)
    squared = own[:, None] + own[None, :] - 2 * products
    np.fill_diagonal(squared, -1.0)
    order = np.argsort(squared, axis=1, kind="stable")[:, :near]
    mixing = np.zeros_like(products)
    np.put_along_axis(mixing, order, 1 / near, axis=1)
    return mixing


def buckets(n: int, size: int, rng: np.random.Generator) -> Array:
    """The matrix [ceil(n / size), n] that averages clients in random groups of `size`."""
    order = rng.permutation(n)
    mixing = np.zeros((-(-n // size), n))
    mixing[np.arange(n) // size, order] = 1.0
    return np.asarray(mixing / mixing.sum(1, keepdims=True))


def mixed(mixing: Array, inner: Any, updates: Array, context: Context, run: Run) -> Aggregated:
    """The verdict of `inner` on mixed updates, told for the clients.

    A client's weight and score follow from those of the mixtures it is in; one that is in no accepted mixture is
    refused.
    """
    mixtures = np.stack([weighted(updates, row) for row in mixing])
    names = tuple(f"mixture-{k}" for k in range(len(mixing)))
    # What a rule remembers of one round's mixtures says nothing about the next one's.
    inside = replace(context, clients=names, shares=mixing @ context.shares, memory={})
    found = inner.aggregate(mixtures, inside, run=run)
    parts = mixing / np.maximum(mixing.sum(0), 1e-300)
    scores = found.scores @ parts
    used = mixing[found.accepted].sum(0) > 0
    refused = {int(i): Reason("OS528", "every mixture that it is in was refused") for i in np.flatnonzero(~used)}
    return verdict(found.update, found.weights @ mixing, scores, refused)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestNeighbourMixing:
    """Each update is replaced by the mean of its nearest ones; then another rule aggregates.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan 2023, Fixing by mixing (AISTATS; arXiv 2302.01772),
    alg. 2: the n - f nearest, f declared. `declared` is f as a part of n. `inner` is any rule of this package.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.nnm",
        summary="replaces each update by the mean of its nearest ones, then applies another rule",
        paper="Allouah et al. 2023, AISTATS, arXiv 2302.01772",
        needs=Needs(),
        cost="one product of the updates with themselves, n mixtures, and the inner rule",
        blind_spots=("attackers who are as near to honest clients as these to one another",),
        marks=frozenset({"mechanism"}),
    )

    inner: str = "aggregate.rfa"
    declared: Annotated[float, Field(ge=0, lt=0.5)] = 0.3

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round. Raises NotMet below 3 clients, and what the inner rule raises."""
        at_least(3, context, self.card.id)
        n = len(updates)
        mixing = neighbours(gram(updates), n - int(self.declared * n))
        return mixed(mixing, make("aggregate", self.inner), updates, context, run)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucketing:
    """Clients are averaged in random groups of `size`; then another rule aggregates the groups.

    Source: Karimireddy, He, Jaggi 2022, Byzantine-robust learning on heterogeneous datasets via bucketing (ICLR; arXiv
    2006.09365), alg. 1; the paper finds that 2 is mostly right. `inner` is any rule of this package.
    """

    card: ClassVar[Card] = Card(
        id="aggregate.bucketing",
        summary="averages random groups of clients, then applies another rule to the groups",
        paper="Karimireddy et al. 2022, ICLR, arXiv 2006.09365",
        needs=Needs(),
        cost="n / size mixtures and the inner rule",
        blind_spots=("spoils `size` times as many mixtures as there are attackers",),
        marks=frozenset({"mechanism"}),
    )

    inner: str = "aggregate.rfa"
    size: Annotated[int, Field(ge=1)] = 2

    def aggregate(self, updates: Array, context: Context, /, *, run: Run) -> Aggregated:
        """Aggregate one round. Raises what the inner rule raises."""
        mixing = buckets(len(updates), self.size, generator(self.card.id, context, run))
        return mixed(mixing, make("aggregate", self.inner), updates, context, run)
