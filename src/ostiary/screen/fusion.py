"""Fusion: one chance of being poison for every sample, from its class's groups and its distance from its class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.traits import Traits

ARTIFACT = "fusion"
WITH_TRUSTED = (-6.39, 4.5, 7.95, 9.88, 3.1, 2.05)
"""The constant and the weight of each trait, fitted on develop sets by `make bench-fusion`."""
WITHOUT = (-2.89, 1.32, 0.11, 2.97, 4.38, -0.04)
"""The same for sets without trusted samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """The chance that a sample is poison, from what SCAn and Mahalanobis distances see of it and of its class.

    A logistic regression on five traits of a sample: the logarithm of its squared distance from its class, over what
    samples that nobody suspects reach; the logarithm of that distance over the one from the nearest other class;
    whether it is in the odd group of a class that stands out (J* beyond SCAn's limit, or three times rarer among
    trusted samples, by the upper end of an interval), and how deep in it; and how much of its class lies far.
    The weights were fitted on develop sets of ten attacks and of models that nobody attacked; see decision 21.
    Without trusted samples the data are their own ruler, as in `screen.scan`, and other weights hold.
    """

    card: ClassVar[Card] = Card(
        id="screen.fusion",
        summary="fuses odd groups and distances into the chance that a sample is poison",
        paper="none; it fuses Tang et al. 2021 (arXiv 1908.00686) and Lee et al. 2018 (arXiv 1807.03888)",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward pass over the data; a few eigenvectors per class",
        code="OS305",
        limits=(Limit(measure="share", low=0.01), Limit(measure="suspected", low=5)),
        blind_spots=(
            "a handful of poisoned samples, less than 1 % of a class; poison that the model did not learn",
            "without trusted samples: all-to-all, adaptive, warping and source-specific poison",
        ),
        marks=frozenset({"mechanism"}),
    )

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample with its chance; those above one half are suspected."""
        traits = Traits.of(data, model, trusted, run)
        constant, *weights = WITH_TRUSTED if traits.ruler.placed else WITHOUT

        def split(features: np.ndarray, label: int) -> Split:
            chances = expit(constant + traits.of_class(features, label) @ np.array(weights))
            suspected = chances > 0.5
            return Split(
                score=float(suspected.mean()),
                measure="share",
                scores=chances,
                suspected=suspected,
                points=traits.ruler.within.centred(features, label)[:, :2],
            )

        return screen_classes(data, model, split, lambda rows: rows, artifact=ARTIFACT, run=run)
