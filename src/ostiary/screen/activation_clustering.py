"""Activation Clustering: split each class's features in two and ask how clear the split is."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.parting import two_means

ARTIFACT = "activation-clustering"
MAX_SILHOUETTE = 2000
"""The silhouette costs n^2; larger classes use a seeded sample of this size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationClustering:
    """Two-means on each class's reduced features; the smaller group of a well-split class is suspicious.

    Source: Chen, Carvalho, Baracaldo, Ludwig, Edwards, Lee, Molloy, Srivastava 2018 (arXiv
    1811.03728), sec. 4: last hidden layer, reduction to 10 dimensions, 2-means, silhouette.
    """

    card: ClassVar[Card] = Card(
        id="screen.activation-clustering",
        summary="splits each class's features into two groups and scores how clear the split is",
        paper="Chen et al. 2018, arXiv 1811.03728",
        official_code="https://github.com/Trusted-AI/adversarial-robustness-toolbox",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward pass over the data; 2-means per class",
        code="OS301",
        limits=(Limit(measure="separation", low=0.35), Limit(measure="minority", high=0.45)),
        deviations=(
            "principal instead of independent components",
            "2-means starts from the best cut along each component, not at random",
            "exclusionary reclassification by nearest neighbours of thumbnails instead of a retrained model",
            "the limit is on the silhouette less 0.3 times the support that reclassification gives",
        ),
        blind_spots=(
            "clean-label and adaptive poison whose features mix with the class",
            "more than 45 % of a class poisoned, or a handful of samples",
        ),
        marks=frozenset({"mechanism"}),
    )

    dimensions: Annotated[int, Field(ge=2)] = 10

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample: its silhouette, positive in the smaller group of its class, negative in the larger."""
        return screen_classes(
            data, model, lambda features, _: self._split(features, run.seed), artifact=ARTIFACT, run=run
        )

    def _split(self, features: np.ndarray, seed: int) -> Split:
        dimensions = min(self.dimensions, *features.shape)
        reduced = PCA(dimensions, random_state=seed).fit_transform(features)
        groups = two_means(reduced)
        minority = groups.labels_ == np.bincount(groups.labels_, minlength=2).argmin()
        sample = _sample(minority, seed)
        silhouette = silhouette_samples(reduced[sample], groups.labels_[sample])
        # Outside the sample the distances to both centres stand in: same sign, same range, linear cost.
        near, far = np.sort(groups.transform(reduced), axis=1).T
        strength = (far - near) / np.maximum(far, 1e-12)
        strength[sample] = np.abs(silhouette)
        return Split(
            score=float(silhouette.mean()),
            measure="silhouette",
            scores=np.where(minority, strength, -strength),
            suspected=minority,
            points=reduced,
        )


def _sample(minority: np.ndarray, seed: int) -> np.ndarray:
    n = len(minority)
    if n <= MAX_SILHOUETTE:
        return np.arange(n)
    drawn = np.random.default_rng(seed).choice(n, MAX_SILHOUETTE, replace=False)
    # Both groups must be in the sample, or there is no silhouette at all.
    return np.unique(np.concatenate([drawn, np.flatnonzero(minority)[:10]]))
