"""CutMix, as a control: what it does to backdoors is measured, not promised."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.steps import mixture_step, pasted_box


@dataclass(frozen=True, kw_only=True, slots=True)
class CutMix:
    """Trains on images into which a box of another is pasted, and on both labels by their share of the area.

    Source: Yun, Han, Oh, Chun, Choe, Yoo 2019, CutMix (ICCV; arXiv 1905.04899), sec. 3.1; against poison Borgnia et al.
    2021 (ICASSP; arXiv 2011.09527). A control: a patch that is pasted along, or is pasted over, comes with the wrong
    share of its label. Trusted samples are not used, and nothing is chosen. Raises as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.cutmix",
        summary="control: trains on images with a box of another, and on both labels by area",
        paper="Yun et al. 2019, ICCV, arXiv 1905.04899; Borgnia et al. 2021, ICASSP, arXiv 2011.09527 (poison)",
        official_code="https://github.com/clovaai/CutMix-PyTorch",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="that of training",
        deviations=("every batch is mixed; the authors mix half of those of CIFAR-10",),
        blind_spots=("backdoors whose trigger is seen in part of the image, or in all of it",),
        marks=frozenset({"mechanism"}),
    )

    alpha: Annotated[float, Field(gt=0)] = 1.0

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data`; the accuracy told on the way is that of the mixed labels."""
        rng = run.generator(self.card.name)
        step = mixture_step(recipe, run.device, mix=pasted_box(rng), alpha=self.alpha, rng=rng)
        return Hardened(train(fresh.clone(), data, recipe, run=run, step=step).model)
