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


def class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Means [k, d] of features [n, d] by label, NaN for a class without samples."""
    means = np.full((classes, features.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = features[labels == label].mean(0, dtype=np.float64)
    return means


def whitening(gaps: np.ndarray) -> np.ndarray:
    """The matrix [d, d] that makes the variation of gaps [n, d] about zero 1; shrunk as Ledoit and Wolf 2004 do."""
    variance, axes = eigh(LedoitWolf(assume_centered=True).fit(gaps).covariance_)
    return np.asarray(axes / np.sqrt(np.maximum(variance, FLOOR * max(variance.mean(), FLOOR))))


def within(features: np.ndarray, labels: np.ndarray, classes: int) -> Within:
    """Means and variation of features [n, d] about them."""
    values = features.astype(np.float64)
    means = class_means(values, labels, classes)
    return Within(means, whitening(values - means[labels]))


def distances(ruler: Within, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distances [n] of samples from the means of their labels."""
    found = np.empty(len(labels))
    for label in np.unique(labels).tolist():
        rows = labels == label
        found[rows] = (ruler.centred(features[rows], label) ** 2).sum(1)
    return found
