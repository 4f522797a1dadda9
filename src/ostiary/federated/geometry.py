"""Lengths, angles and clipping of updates, in blocks, so that memory stays bounded beside the updates themselves.

All sums are in float64 whatever the updates are held in: in float32 the distances between updates that are small
beside the weights are wrong by ten percent and more.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from ostiary.federated.verdict import Array, Reason

BLOCK = 2**18
"""Parameters at a time."""

TINY = 1e-300


def blocks(d: int) -> Iterator[slice]:
    """The ranges of parameters that are worked on at once."""
    return (slice(start, min(start + BLOCK, d)) for start in range(0, d, BLOCK))


def gram(updates: Array) -> Array:
    """The inner products [n, n] of updates [n, d]."""
    found = np.zeros((len(updates), len(updates)))
    for part in blocks(updates.shape[1]):
        block = np.asarray(updates[:, part], np.float64)
        found += block @ block.T
    return found


def times(updates: Array, vector: Array) -> Array:
    """The inner products [n] of updates [n, d] with one vector [d]."""
    parts = (np.asarray(updates[:, part], np.float64) @ vector[part] for part in blocks(updates.shape[1]))
    return np.asarray(sum(parts, np.zeros(len(updates))))


def norms(updates: Array) -> Array:
    """The Euclidean lengths [n]."""
    parts = (np.square(updates[:, part], dtype=np.float64).sum(1) for part in blocks(updates.shape[1]))
    return np.sqrt(sum(parts, np.zeros(len(updates))))


def weighted(updates: Array, weights: Array) -> Array:
    """The sum [d] of updates [n, d] times weights [n]."""
    found = np.empty(updates.shape[1])
    for part in blocks(updates.shape[1]):
        found[part] = weights @ np.asarray(updates[:, part], np.float64)
    return found


def cosines(products: Array) -> Array:
    """Cosines [n, n] from inner products [n, n]; an update of length 0 is at right angles to all others."""
    length = np.sqrt(np.maximum(np.diag(products), 0))
    found: Array = np.clip(products / np.maximum(np.outer(length, length), TINY), -1, 1)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def clip_factors(lengths: Array, bound: float) -> Array:
    """What each update is multiplied with so that none is longer than `bound`."""
    factors = np.ones(len(lengths))
    np.divide(bound, lengths, out=factors, where=lengths > bound)
    return factors


def clip_notes(factors: Array, bound: float) -> dict[int, Reason]:
    """A reason OS521 for each update that was made shorter."""
    return {
        int(i): Reason("OS521", f"clipped to length {bound:.3g}, {factors[i]:.0%} of its own")
        for i in np.flatnonzero(factors < 1)
    }


def clusters(distances: Array, *, smallest: int, single: bool) -> NDArray[np.int64]:
    """HDBSCAN on a matrix of distances: a label for each row, -1 for rows in no cluster.

    `single` allows one cluster for all. With min_samples 1, as FLAME and DeepSight have it.
    """
    labels = HDBSCAN(
        min_cluster_size=smallest,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=single,
        copy=True,
    ).fit_predict(distances)
    return np.asarray(labels, np.int64)
