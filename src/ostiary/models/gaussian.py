"""How features vary within a class, as trusted samples show it: a mean for every class and one covariance for all."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import LedoitWolf

FLOOR = 1e-6
"""The least variance, as a share of the mean one: a feature that never varies is no ruler."""


@dataclass(frozen=True, slots=True)
class Within:
    """`means` [k, d] of the classes, NaN for one without samples; `whiten` [d, d] makes the variation within them 1."""

    means: np.ndarray
    whiten: np.ndarray

    def centred(self, features: np.ndarray, label: int) -> np.ndarray:
        """Features [n, d] about the mean of a class, whitened: squared lengths are Mahalanobis distances."""
        return np.asarray((features - self.means[label]) @ self.whiten)


def within(features: np.ndarray, labels: np.ndarray, classes: int) -> Within:
    """Means and the shrunk covariance (Ledoit and Wolf 2004) of features [n, d] about them."""
    values = features.astype(np.float64)
    means = np.full((classes, values.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = values[labels == label].mean(0)
    covariance = LedoitWolf(assume_centered=True).fit(values - means[labels]).covariance_
    variance, axes = eigh(covariance)
    return Within(means, axes / np.sqrt(np.maximum(variance, FLOOR * max(variance.mean(), FLOOR))))
