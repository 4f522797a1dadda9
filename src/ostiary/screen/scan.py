"""SCAn: ask of every class whether two groups explain its features far better than one."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.memory import rows_of
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.features import features_of
from ostiary.screen.two_groups import AXES, LEAST_CLASSES, odd_group, ruler_of, stand_out

ARTIFACT = "scan"
LIMIT = float(np.exp(2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """A likelihood ratio of two groups against one in every class; a class that stands out was poisoned.

    Source: Tang, Wang, Tang, Zhang 2021, Demon in the Variant (USENIX Security), sec. 4: a feature is the identity of
    its class plus a variation that all classes share. In each class of the suspect data the two groups are sought that
    are most likely under that variation; J is how much likelier they are than one group, J* its distance from the
    median class in robust standard deviations, and the limit is the paper's exp(2). Trusted samples, where there are
    enough, give the variation and say which of the two groups is the odd one; else the suspect data give it, and the
    odd group is the one that the model is surer of. That one is suspected.

    Raises NotMet for fewer than four classes.
    """

    card: ClassVar[Card] = Card(
        id="screen.scan",
        summary="asks of every class whether two groups explain its features far better than one",
        paper="Tang et al. 2021, USENIX Security, arXiv 1908.00686",
        official_code="https://github.com/TDteach/Demon-in-the-Variant",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward pass over the data; a few eigenvectors per class",
        code="OS303",
        limits=(Limit(measure="j_star", low=LIMIT),),
        deviations=(
            "the covariance within classes is that of trusted samples, shrunk (Ledoit and Wolf), not fitted by EM",
            "without them it is that within the two groups of every class, parted twice",
            "the search for the two groups starts from cuts along the strongest axes, not from a random split",
            "trusted samples say which group is the odd one; without them it is the one that the model is surer of",
            "without them a class counts only if the model is surer of its odd group than of the median class",
            "J of a class with more samples than the median class is cut down to as many: natural kinds grow with n",
            "a class counts only where J* is high, not low",
        ),
        blind_spots=(
            "all-to-all backdoors: every class has an odd group, so that none stands out",
            "a handful of poisoned samples; models with fewer than four classes",
            "a natural kind of member that the trusted samples of its class lack",
            "without trusted samples: adaptive, warping and source-specific poison",
        ),
        marks=frozenset({"mechanism"}),
    )

    axes: Annotated[int, Field(ge=1)] = AXES

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample by how much likelier it is in its class's odd group than in the other."""
        if len(data.classes) < LEAST_CLASSES:
            raise NotMet(f"needs {LEAST_CLASSES} classes, the data have {len(data.classes)}")
        ruler = ruler_of(data, model, trusted, run)
        logits, labels = features_of(model, data, run).logits, data.labels.numpy()

        sure = np.full((len(data.classes), 2), np.nan)

        def split(features: np.ndarray, label: int) -> Split:
            found = odd_group(features, rows_of(logits, labels == label), label, ruler, self.axes)
            sure[label] = found.sure
            inside, outside = found.points[found.odd].mean(0), found.points[~found.odd].mean(0)
            scores = ((found.points - outside) ** 2).sum(1) - ((found.points - inside) ** 2).sum(1)
            return Split(
                score=found.parted.j, measure="j", scores=scores, suspected=found.odd, points=found.parted.plane
            )

        def compare(rows: list[ClassScore]) -> list[ClassScore]:
            j = np.array([np.nan if row.score is None else row.score for row in rows])
            found = stand_out(j, np.array([row.measures["n"] for row in rows]), sure, ruler)
            return [_with(row, j_star) for row, j_star in zip(rows, found.tolist(), strict=True)]

        return screen_classes(data, model, split, compare, artifact=ARTIFACT, run=run)


def _with(row: ClassScore, j_star: float) -> ClassScore:
    """The row with its J*, where it has one."""
    return row if np.isnan(j_star) else row.model_copy(update={"measures": {**row.measures, "j_star": j_star}})
