"""SCAn: ask of every class whether two groups explain its features far better than one."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.linalg import eigh

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import Within, within
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.features import features_of
from ostiary.screen.parting import part_line

ARTIFACT = "scan"
LEAST_CLASSES = 4
"""With fewer there is no middle to hold a class against."""
LEAST_TRUSTED = 3
"""Trusted samples for every feature: with about one, on digits, a natural kind of a class stood out as poison does."""
ROUNDS = 30
"""Moves of the border between two groups at most; it settles within a few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """A likelihood ratio of two groups against one in every class; a class that stands out was poisoned.

    Source: Tang, Wang, Tang, Zhang 2021, Demon in the Variant (USENIX Security), sec. 4: a feature is the identity of
    its class plus a variation that all classes share. The variation is learned from trusted samples. In each class of
    the suspect data the two groups are sought that are most likely under it; J is how much likelier they are than one
    group, J* its distance from the median class in robust standard deviations, and the limit is the paper's exp(2).
    Of the two groups the one whose mean lies further from the trusted samples of the class is suspected.

    Raises NotMet for fewer than four classes, or fewer trusted samples than three times the features.
    """

    card: ClassVar[Card] = Card(
        id="screen.scan",
        summary="asks of every class whether two groups explain its features far better than one",
        paper="Tang et al. 2021, USENIX Security, arXiv 1908.00686",
        official_code="https://github.com/TDteach/Demon-in-the-Variant",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=10),
        cost="one forward pass over the data; a few eigenvectors per class",
        code="OS303",
        limits=(Limit(measure="j_star", low=float(np.exp(2))),),
        deviations=(
            "the covariance within classes is that of trusted samples, shrunk (Ledoit and Wolf), not fitted by EM",
            "the search for the two groups starts from cuts along the strongest axes, not from a random split",
            "trusted samples say which of the two groups is the odd one; a class counts only where J* is high, not low",
        ),
        blind_spots=(
            "all-to-all backdoors: every class has an odd group, so that none stands out",
            "a handful of poisoned samples; models with fewer than four classes",
            "a natural kind of member that the trusted samples of its class lack",
        ),
        marks=frozenset({"mechanism"}),
    )

    axes: Annotated[int, Field(ge=1)] = 10

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run
    ) -> SampleScores:
        """Score every sample by how much likelier it is in its class's odd group than in the other."""
        if len(data.classes) < LEAST_CLASSES:
            raise NotMet(f"needs {LEAST_CLASSES} classes, the data have {len(data.classes)}")
        known = features_of(model, trusted, run).features
        if len(known) < LEAST_TRUSTED * known.shape[1]:
            raise NotMet(
                f"needs {LEAST_TRUSTED} trusted samples for each of the model's {known.shape[1]} features, "
                f"{LEAST_TRUSTED * known.shape[1]} together, has {len(known)}"
            )
        ruler = within(known, trusted.labels.numpy(), len(data.classes))

        def split(features: np.ndarray, label: int) -> Split:
            return self._split(features, label, ruler)

        return screen_classes(data, model, split, _stand_out, artifact=ARTIFACT, run=run)

    def _split(self, features: np.ndarray, label: int, ruler: Within) -> Split:
        points = ruler.centred(features, label)
        centred = points - points.mean(0)
        d = centred.shape[1]
        _, axes = eigh(centred.T @ centred, subset_by_index=[max(0, d - self.axes), d - 1])
        gain, group = max((_two_groups(centred, axis) for axis in axes.T), key=lambda found: found[0])
        means = [points[side].mean(0) for side in (group, ~group)]
        if np.linalg.norm(means[0]) < np.linalg.norm(means[1]):
            group, means = ~group, means[::-1]
        odd, other = means
        scores = ((points - other) ** 2).sum(1) - ((points - odd) ** 2).sum(1)
        return Split(
            score=float((gain - d) / np.sqrt(2 * d)),
            measure="j",
            scores=scores,
            suspected=group,
            points=centred @ axes[:, ::-1],
        )


def _two_groups(points: np.ndarray, axis: np.ndarray) -> tuple[float, np.ndarray]:
    """Twice the gain in log-likelihood of two groups over one, and one group as a mask; from a cut along `axis`.

    Under unit variance the best border between two groups stands at right angles to the line that joins their means.
    """
    before, group = None, np.zeros(len(points), bool)
    for _ in range(ROUNDS):
        group, _ = part_line(points @ axis)
        if before is not None and np.array_equal(group, before):
            break
        before, axis = group, points[group].mean(0) - points[~group].mean(0)
    gap = points[group].mean(0) - points[~group].mean(0)
    n = len(points)
    return float(group.sum() * (n - group.sum()) / n * (gap**2).sum()), group


def _stand_out(rows: list[ClassScore]) -> list[ClassScore]:
    """The rows with J*: how far J lies above the median class, in robust standard deviations but at least its own."""
    known = np.array([row.score for row in rows if row.score is not None])
    if len(known) < LEAST_CLASSES:
        return rows
    middle = float(np.median(known))
    spread = max(1.0, 1.4826 * float(np.median(np.abs(known - middle))))
    return [
        row
        if row.score is None
        else row.model_copy(update={"measures": {**row.measures, "j_star": (row.score - middle) / spread}})
        for row in rows
    ]
