"""Seeded, stratified, disjoint draws from a labelled set."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ostiary.core.errors import ConfigError, DataError
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Labels
from ostiary.data.base import ImageSet

B = TypeVar("B")


def stratified_rows(labels: Labels, sizes: Sequence[int] | Sequence[float], seed: int) -> tuple[Tensor, ...]:
    """Disjoint row numbers, one ascending int64 tensor per size, each with the class shares of `labels`.

    `sizes` are all counts (int) or all fractions (float, at most 1 together). Totals are exact; the
    classes share them by largest remainder. Depends on `labels`, `sizes` and `seed` alone.
    ConfigError for sizes that are neither, DataError for more samples than there are.
    """
    counts = _counts(sizes, len(labels))
    rng = np.random.default_rng(seed)
    given = labels.numpy()
    pools = [rng.permutation(np.flatnonzero(given == one)) for one in np.unique(given)]
    parts = []
    for count in counts:
        shares = largest_remainder(np.array([len(pool) for pool in pools], dtype=np.int64), count)
        drawn = [pool[:share] for pool, share in zip(pools, shares, strict=True)]
        pools = [pool[share:] for pool, share in zip(pools, shares, strict=True)]
        parts.append(torch.from_numpy(np.sort(np.concatenate(drawn)).astype(np.int64)))
    return tuple(parts)


@overload
def split(data: ImageSet, sizes: Sequence[int] | Sequence[float], seed: int) -> tuple[ImageSet, ...]: ...
@overload
def split(data: LabelledSet[B], sizes: Sequence[int] | Sequence[float], seed: int) -> tuple[LabelledSet[B], ...]: ...
def split(data: Any, sizes: Sequence[int] | Sequence[float], seed: int) -> tuple[Any, ...]:
    """Disjoint subsets of `data`, one per size, stratified by class; see `stratified_rows`."""
    return tuple(data.subset(rows) for rows in stratified_rows(data.labels, sizes, seed))


@overload
def trusted_subset(data: ImageSet, n: int, seed: int) -> ImageSet: ...
@overload
def trusted_subset(data: LabelledSet[B], n: int, seed: int) -> LabelledSet[B]: ...
def trusted_subset(data: Any, n: int, seed: int) -> Any:
    """`n` samples drawn from `data`, stratified by class; see `stratified_rows`."""
    return split(data, (n,), seed)[0]


def per_class_counts(data: LabelledSet[Any]) -> tuple[int, ...]:
    """How many samples each class has, in the order of `data.classes`."""
    return tuple(torch.bincount(data.labels, minlength=len(data.classes)).tolist())


def largest_remainder(weights: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole shares of `total` in proportion to `weights`; ties go to the first. No share exceeds its weight."""
    whole = int(weights.sum())
    if whole == 0:
        return np.zeros_like(weights)
    shares, rest = np.divmod(weights * total, whole)
    shares[np.argsort(-rest, kind="stable")[: total - int(shares.sum())]] += 1
    return shares


def _counts(sizes: Sequence[int] | Sequence[float], n: int) -> list[int]:
    if not sizes or any(isinstance(size, bool) or not size > 0 for size in sizes):
        raise ConfigError(f"sizes of a split must be positive, got {list(sizes)}")
    if all(isinstance(size, int) for size in sizes):
        counts = [int(size) for size in sizes]
    elif all(isinstance(size, float) for size in sizes):
        if sum(sizes) > 1 + 1e-9:
            raise ConfigError(f"fractions of a split add up to {sum(sizes):g}, more than 1")
        edges = [round(n * edge) for edge in np.cumsum([0.0, *sizes])]
        counts = [high - low for low, high in pairwise(edges)]
    else:
        raise ConfigError(f"sizes of a split must be all counts or all fractions, got {list(sizes)}")
    if sum(counts) > n:
        raise DataError(f"{sum(counts)} samples asked for, the set has {n}", hint="ask for fewer or give a larger set")
    return counts
