"""Channel Lipschitzness: how far the steepest channel of any convolution lies above the others of its layer."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.models.lipschitz import channel_bounds
from ostiary.scan.outlier import grubbs

LEAST_CHANNELS = 8
"""A layer of n channels cannot have one further out than (n - 1) / sqrt(n) deviations."""
LEAST = 1e-300
"""A p-value of 0 has no logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelLipschitz:
    """Bound what every channel can do to its input, and look for a channel far above its layer.

    Source: Zheng, Tang, Li, Liu 2022, Data-free Backdoor Removal based on Channel Lipschitzness (ECCV; arXiv
    2208.03111): the bound of a channel is the spectral norm of its kernel, as a matrix [inputs, height x width],
    times the gain of the batch normalisation after it. The paper prunes channels whose bound lies more than u = 3
    standard deviations above the mean of their layer. Here the largest such distance is tested for an outlier
    (Grubbs 1950).
    """

    card: ClassVar[Card] = Card(
        id="scan.channel-lipschitz",
        summary="bounds the steepness of every channel, without any data, and looks for one far above its layer",
        paper="Zheng et al. 2022, ECCV, arXiv 2208.03111",
        official_code="https://github.com/rkteddy/channel-Lipschitzness-based-pruning",
        needs=Needs(access="gradients", modality="images"),
        cost="one singular value per channel",
        code="OS207",
        # Nothing is found without reference models: p went down to 0.003 on models that nobody attacked, and stayed
        # above that on most that somebody did.
        limits=(Limit(measure="p_value", high=0.0),),
        deviations=(
            "the statistic that the paper prunes by is the score of the model, not what is pruned",
            "Grubbs' test over the channels of a layer, times the number of layers, instead of 3 deviations",
            "the p-value is no verdict: channels that nobody attacked are not drawn from a normal distribution",
            "kernels without a batch normalisation after them count with their spectral norm alone",
        ),
        blind_spots=(
            "everything, unless reference models are given; backdoors that no single channel carries",
            "which class is the target",
        ),
        marks=frozenset({"mechanism"}),
    )

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run) -> ModelEvidence:
        """Examine every convolution of `model`; neither `trusted` nor `run` is used.

        Raises NotMet when none has eight channels or more.
        """
        outliers = {name: outlier(bounds) for name, bounds in channel_bounds(model).items()}
        known = {name: found for name, found in outliers.items() if found is not None}
        if not known:
            raise NotMet(f"needs a convolution of at least {LEAST_CHANNELS} channels")
        distance, p = min(known.values(), key=lambda found: found[1])
        p = min(1.0, p * len(known))
        return ModelEvidence(
            score=-math.log10(max(p, LEAST)),
            measures={"channel_outlier": distance, "p_value": p},
            per_class=(),
            examined=tuple(f"layer:{name}" for name in known),
        )


def outlier(bounds: Tensor) -> tuple[float, float] | None:
    """How many standard deviations the largest bound lies above the mean, and the p-value of Grubbs' test of that.

    None for too few or equal channels. p is the upper end that the test's critical values rest on.
    """
    spread = float(bounds.std())
    if len(bounds) < LEAST_CHANNELS or not spread > 0:
        return None
    distance = float(bounds.max() - bounds.mean()) / spread
    return distance, float(grubbs(bounds.double().numpy()).min())
