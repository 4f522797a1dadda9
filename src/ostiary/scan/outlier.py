"""The outlier step of Neural Cleanse, apart from the search so that it can be held against published masks."""

import numpy as np
from scipy import stats

CONSISTENCY = 1.4826
"""Makes the median absolute deviation of a normal sample estimate its standard deviation."""


def anomaly_index(sizes: np.ndarray) -> np.ndarray:
    """How far each mask lies *below* the median size, in scaled median absolute deviations.

    Source: Wang et al. 2019, sec. IV-C; only small masks count, so larger ones get negative values.
    sizes: [k] L1 norms, NaN for classes without a mask; gives [k] with NaN at the same places, and
    all NaN when fewer than three classes have a mask. Equal sizes have index 0; when the deviation
    is zero, a size that differs gets plus or minus infinity.
    """
    known = ~np.isnan(sizes)
    index = np.full(sizes.shape, np.nan)
    if known.sum() < 3:
        return index
    gap = np.median(sizes[known]) - sizes[known]
    deviation = CONSISTENCY * np.median(np.abs(gap))
    with np.errstate(divide="ignore", invalid="ignore"):
        index[known] = np.where(gap == 0, 0.0, gap / deviation)
    return index


def size_ratio(sizes: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """How many times smaller each mask is than the median mask; [k], NaN where `sizes` is.

    `tried` [k] is the size of the last mask that was tried for each class. Where a class has no mask
    that works, even this one was too small: it stands in for the class in the median. NaN leaves the
    class out.
    """
    known = np.where(np.isnan(sizes), tried, sizes)
    if np.isnan(known).all():
        return sizes
    return np.asarray(np.nanmedian(known) / np.maximum(sizes, 1e-3))


def grubbs(values: np.ndarray) -> np.ndarray:
    """P of the hypothesis that values [n] are drawn from one normal distribution, against each lying above the rest.

    Source: Grubbs 1950: each value is held against mean and deviation of the others (a t distribution of n - 2
    degrees of freedom), times n, since any of them could have been the one. All 1 for fewer than three values or equal
    ones; 0 for the one value that differs from equal others.
    """
    n = len(values)
    if n < 3 or np.ptp(values) == 0:
        return np.ones(n)
    centred = values - values.mean()
    square = (centred**2).sum()
    rest = np.maximum(square - centred**2 * n / (n - 1), 0.0)  # squares of the others about their own mean
    with np.errstate(divide="ignore"):
        t = np.where(centred == 0, 0.0, centred * np.sqrt(n * (n - 2) / (n - 1)) / np.sqrt(rest))
    return np.asarray(np.minimum(1.0, n * stats.t.sf(t, n - 2)))
