"""Trojan signature: the last layer's weights of a target class are larger on average than those of other classes."""

import math
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
from ostiary.scan.outlier import CONSISTENCY, grubbs

LEAST_CLASSES = 3
"""Of two values neither lies apart from the others."""
MAX_INDEX = 1e3
"""Stands in for an infinite index (the other classes are equal)."""
LEAST = 1e-300
"""A p-value of 0 has no logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrojanSignature:
    """Compare the mean weight of every class in the layer that yields the logits.

    Source: Fields, Samragh, Javaheripi, Koushanfar, Javidi 2021, Trojan Signatures in DNN Weights (ICCV
    workshop; arXiv 2109.02836). Grubbs' test tells how likely a mean so far above the others is by chance. It uses
    no data and runs nothing.
    """

    card: ClassVar[Card] = Card(
        id="scan.trojan-signature",
        summary="compares the mean weight of every class in the last layer, without any data",
        paper="Fields et al. 2021, ICCV workshop, arXiv 2109.02836",
        needs=Needs(access="gradients", modality="images"),
        cost="one mean over the weights of the last layer",
        code="OS206",
        version="2",
        # One in a hundred models whose means are normally distributed: a fifth of what a preset may accuse wrongly.
        limits=(Limit(measure="p_value", high=0.01),),
        deviations=("Grubbs' test instead of Dixon's Q test, whose tables end at 30 values",),
        blind_spots=(
            "clean-label backdoors, whose target has its own features in every poisoned image",
            "an attacker who keeps the means alike; last layers after features that may be negative",
            "all-to-all backdoors; models with fewer than three classes",
        ),
        marks=frozenset({"mechanism"}),
    )

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; neither `trusted` nor `run` is used.

        Raises NotMet when no linear layer yields the logits, or for fewer than three classes.
        """
        means = class_means(model)
        measured = zip(grubbs(means), weight_index(means), means, strict=True)
        rows = tuple(
            ClassScore(
                label=label,
                score=-math.log10(max(p, LEAST)),
                measures={"p_value": float(p), "weight_index": float(index), "mean_weight": float(mean)},
            )
            for label, (p, index, mean) in enumerate(measured)
        )
        return ModelEvidence(
            score=max(row.score or 0.0 for row in rows),
            per_class=rows,
            # Weights can accuse a class, not clear it: a target whose mean is as the others' is common.
            examined=(f"layer:{model.head_name}",),
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
