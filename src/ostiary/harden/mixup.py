"""Mixup, as a control: what it does to backdoors is measured, not promised."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.steps import mixture_step, weighted_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    """Trains on weighted means of two images and of their labels.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz 2018, mixup (ICLR; arXiv 1710.09412), sec. 2; against poison Borgnia et al.
    2021 (ICASSP; arXiv 2011.09527). A control: a trigger at part of its strength comes with part of its label, and may
    be learned for it. Trusted samples are not used, and nothing is chosen. Raises as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.mixup",
        summary="control: trains on weighted means of images and of their labels",
        paper="Zhang et al. 2018, ICLR, arXiv 1710.09412; Borgnia et al. 2021, ICASSP, arXiv 2011.09527 (poison)",
        official_code="https://github.com/facebookresearch/mixup-cifar10",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="that of training",
        deviations=("two images, one weight per batch; Borgnia et al. also mix four",),
        blind_spots=("backdoors whose trigger still shows in a mixture",),
        marks=frozenset({"mechanism"}),
    )

    alpha: Annotated[float, Field(gt=0)] = 1.0

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data`; the accuracy told on the way is that of the mixed labels."""
        rng = run.generator(self.card.name)
        step = mixture_step(recipe, run.device, mix=weighted_mean, alpha=self.alpha, rng=rng)
        return Hardened(train(fresh.clone(), data, recipe, run=run, step=step).model)
