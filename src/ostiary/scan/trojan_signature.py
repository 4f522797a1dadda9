"""Trojan signature: the last layer's weights of a target class are larger on average than those of other classes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import ClassScore, ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.outlier import CONSISTENCY

LEAST_CLASSES = 5
"""Among fewer, one mean that lies apart from the others is no outlier."""
MAX_INDEX = 1e3
"""Stands in for an infinite index (the other classes are equal)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrojanSignature:
    """Compare the mean weight of every class in the layer that yields the logits.

    Source: Fields, Samragh, Javaheripi, Koushanfar, Javidi 2021, Trojan Signatures in DNN Weights (ICCV
    workshop; arXiv 2109.02836). The index of a class is the distance of its mean weight above the median of all
    classes, in median absolute deviations times 1.4826. It uses no data and runs nothing.
    """

    card: ClassVar[Card] = Card(
        id="scan.trojan-signature",
        summary="compares the mean weight of every class in the last layer, without any data",
        paper="Fields et al. 2021, ICCV workshop, arXiv 2109.02836",
        needs=Needs(access="gradients", modality="images"),
        cost="one mean over the weights of the last layer",
        code="OS206",
        limits=(Limit(measure="weight_index", low=3.5, log=False),),
        deviations=(
            "the modified z-score with its usual limit of 3.5 (Iglewicz, Hoaglin 1993) instead of Dixon's Q test",
        ),
        blind_spots=(
            "clean-label backdoors, whose target has its own features in every poisoned image",
            "an attacker who keeps the means alike; last layers after features that may be negative",
            "all-to-all backdoors; models with fewer than five classes",
        ),
        marks=frozenset({"mechanism"}),
    )

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; neither `trusted` nor `run` is used.

        Raises NotMet when no linear layer yields the logits, or for fewer than five classes.
        """
        means = class_means(model)
        rows = tuple(
            ClassScore(label=label, score=index, measures={"weight_index": index, "mean_weight": float(means[label])})
            for label, index in enumerate(weight_index(means).tolist())
        )
        return ModelEvidence(
            score=max(row.score or 0.0 for row in rows),
            per_class=rows,
            examined=tuple(f"class:{row.label}" for row in rows),
        )


def class_means(model: TorchClassifier) -> np.ndarray:
    """The mean weight of each class [k] in the layer that yields the logits; raises NotMet where there is none."""
    head, classes = model.module.get_submodule(model.head_name), len(model.classes)
    if not isinstance(head, nn.Linear | nn.Conv2d) or len(head.weight) != classes:
        raise NotMet(f"needs a linear layer that yields the logits, '{model.head_name}' is {type(head).__name__}")
    if classes < LEAST_CLASSES:
        raise NotMet(f"needs at least {LEAST_CLASSES} classes, the model has {classes}")
    return head.weight.detach().double().cpu().flatten(1).mean(1).numpy()


def weight_index(means: np.ndarray) -> np.ndarray:
    """How far each mean lies above the median, in scaled median absolute deviations; [k], cut to 1,000."""
    gap = means - np.median(means)
    deviation = CONSISTENCY * np.median(np.abs(gap))
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.where(gap == 0, 0.0, gap / deviation)
    return np.asarray(np.clip(index, -MAX_INDEX, MAX_INDEX))
