"""Lengths, angles and clipping of updates, in blocks, so that memory stays bounded beside the updates themselves.

All sums are in float64 whatever the updates are held in: in float32 the distances between updates that are small
beside the weights are wrong by ten percent and more.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from ostiary.federated.verdict import Array, Reason

BLOCK = 2**13
"""Parameters at a time: a hundred clients' fill a few megabytes, which stay in the processor's cache."""

TINY = 1e-300
ROUNDING = 1e-9
"""What a share of the clients may be off by: 0.28 times 25 is a little more than 7 in float64."""
SHORTEST = 1e-150
"""An update that is shorter goes no way: the squares of its values are no numbers of float64 any more."""


def blocks(updates: Array) -> Iterator[tuple[slice, Array]]:
    """The updates [n, d] some parameters at a time, with the range of these: float64 copies [n, up to BLOCK].

    The next copy is written over the last, so that whoever takes one may change it and must not keep it.
    """
    n, d = updates.shape
    room = np.empty((n, min(BLOCK, d)))
    for start in range(0, d, BLOCK):
        part = slice(start, min(start + BLOCK, d))
        block = room[:, : part.stop - start]
        np.copyto(block, updates[:, part])
        yield part, block


def gram(updates: Array) -> Array:
    """The inner products [n, n] of updates [n, d]."""
    found = np.zeros((len(updates), len(updates)))
    for _, block in blocks(updates):
        found += block @ block.T
    return found


def times(updates: Array, vector: Array) -> Array:
    """The inner products [n] of updates [n, d] with one vector [d]."""
    found = np.zeros(len(updates))
    for part, block in blocks(updates):
        found += block @ vector[part]
    return found


def norms(updates: Array) -> Array:
    """The Euclidean lengths [n]."""
    found = np.zeros(len(updates))
    for _, block in blocks(updates):
        found += np.einsum("ij,ij->i", block, block)
    return np.sqrt(found)


def weighted(updates: Array, weights: Array) -> Array:
    """The sum [d] of updates [n, d] times weights [n]."""
    found = np.empty(updates.shape[1])
    for part, block in blocks(updates):
        found[part] = weights @ block
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
