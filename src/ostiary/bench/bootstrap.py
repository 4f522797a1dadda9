"""Figures over models, with bootstrap intervals: what chance in the choice of models would change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over `n` models with its 95 % interval; None where nothing was measured.

    The interval is a bootstrap percentile interval over the models (Efron 1979). From one model there
    is none, from two it is their range, and from few it is too narrow.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


NOTHING = Estimate(None, None, None, 0)


def mean(values: Iterable[float | None]) -> Estimate:
    """The mean of what was measured; None counts as not measured."""
    found = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(found):
        return NOTHING
    weights = _resampled(len(found), np.random.default_rng(SEED)) / len(found)
    return _estimate(float(found.mean()), weights @ found, len(found), len(found))


def auroc(bad: Sequence[float], good: Sequence[float]) -> Estimate:
    """Area under the ROC curve of scores, higher for `bad`; ties count half. Both groups are resampled apart."""
    if not bad or not good:
        return NOTHING
    high, low = np.array(bad)[:, None], np.array(good)[None, :]
    wins = (high > low) + 0.5 * (high == low)
    rng = np.random.default_rng(SEED)
    of_bad, of_good = _resampled(len(bad), rng) / len(bad), _resampled(len(good), rng) / len(good)
    again = np.einsum("ri,ij,rj->r", of_bad, wins, of_good, optimize=True)
    return _estimate(float(wins.mean()), again, len(bad) + len(good), min(len(bad), len(good)))


def _resampled(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `n` models is drawn, in every resample: [RESAMPLES, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _estimate(value: float, again: np.ndarray, n: int, smallest: int) -> Estimate:
    if smallest < 2:
        return Estimate(value, None, None, n)
    low, high = np.percentile(again, (2.5, 97.5)).tolist()
    # Rounding must not put a mean of equal values outside its own interval.
    return Estimate(value, min(low, value), max(high, value), n)
