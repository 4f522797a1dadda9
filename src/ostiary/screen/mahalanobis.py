"""Mahalanobis distance: how far a sample's features lie from the trusted samples of its label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.stats import binom

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import stratified_rows
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import distances, within
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.features import features_of

ARTIFACT = "mahalanobis"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mahalanobis:
    """Squared Mahalanobis distance of every sample from the trusted samples of its own label.

    Source: Lee, Lee, Lee, Shin 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks (NeurIPS), sec. 2.1: a Gaussian for each class, one covariance for all. What was relabelled by
    an attacker lies far from its label. A sample counts as far when its distance is beyond the `quantile` of trusted
    samples that the Gaussians did not see; a class is suspicious when far more of it is far than that, and more than
    chance explains where every sample is as likely to be far (a binomial test, times the number of classes).
    """

    card: ClassVar[Card] = Card(
        id="screen.mahalanobis",
        summary="measures how far each sample's features lie from the trusted samples of its label",
        paper="Lee et al. 2018, NeurIPS, arXiv 1807.03888",
        official_code="https://github.com/pokaxpoka/deep_Mahalanobis_detector",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=10),
        cost="one forward pass over the data; one matrix product",
        code="OS304",
        limits=(Limit(measure="far", low=0.06), Limit(measure="chance", high=0.01)),
        deviations=(
            "the distance is to the class of the label, not to the nearest class: the label is what is in doubt",
            "the last layer's input alone, without noise added to the images; the covariance is shrunk",
        ),
        blind_spots=(
            "less than 5 % of a class poisoned: its samples lead the ranking, but the class is not accused",
            "poison whose features lie amid its label's, as adaptive attacks make them",
            "a set whose labels are often wrong without any attack",
        ),
        marks=frozenset({"mechanism"}),
    )

    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.99

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run
    ) -> SampleScores:
        """Score every sample with its squared distance over the limit: 1 is as far as trusted samples go."""
        classes = len(data.classes)
        known, labels = features_of(model, trusted, run).features.astype(np.float64), trusted.labels.numpy()
        halves = [rows.numpy() for rows in stratified_rows(trusted.labels, (0.5, 0.5), seed=run.seed)]
        unseen = [
            distances(within(known[one], labels[one], classes), known[other], labels[other])
            for one, other in (halves, halves[::-1])
        ]
        limit = float(np.quantile(np.concatenate(unseen), self.quantile))
        ruler = within(known, labels, classes)

        def far(features: np.ndarray, label: int) -> Split:
            points = ruler.centred(features, label)
            scores = (points**2).sum(1) / limit
            return Split(
                score=float((scores > 1).mean()),
                measure="far",
                scores=scores,
                suspected=scores > 1,
                points=points[:, :2],
            )

        return screen_classes(data, model, far, self._chances, artifact=ARTIFACT, run=run)

    def _chances(self, rows: list[ClassScore]) -> list[ClassScore]:
        """The rows with how likely as many far samples are by chance, in any of the classes."""
        return [
            row
            if row.score is None
            else row.model_copy(update={"measures": {**row.measures, "chance": self._chance(row, len(rows))}})
            for row in rows
        ]

    def _chance(self, row: ClassScore, classes: int) -> float:
        n, far = row.measures["n"], row.measures["suspected"]
        return float(min(1.0, classes * binom.sf(far - 1, n, 1 - self.quantile)))
