"""BppAttack: fewer colours, dithered, and a changed label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import QuantiseTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class BppAttack:
    """Quantise every channel to `levels` levels with Floyd-Steinberg dithering and relabel.

    Source: Wang, Zhai, Ma 2022, BppAttack (CVPR; arXiv 2205.13383), sec. 3.2 (image quantisation and
    dithering). Its contrastive adversarial training is left out: this poisons data alone.
    """

    card: ClassVar[Card] = Card(
        id="attack.bpp",
        summary="fewer, dithered colour levels on some training images, relabelled to the target",
        paper="Wang, Zhai, Ma 2022, CVPR, arXiv 2205.13383",
        official_code="https://github.com/RU-System-Software-and-Security/BppAttack",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data; dithering goes pixel by pixel",
        deviations=("data poisoning alone, without the paper's control over training",),
        marks=frozenset({"mechanism"}),
    )

    levels: Annotated[int, Field(ge=2, le=128)] = 8
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def trigger(self, shape: tuple[int, int, int]) -> QuantiseTrigger:
        """The quantisation for images of `shape` (c, h, w)."""
        return QuantiseTrigger(torch.tensor(self.levels), torch.tensor(shape))

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape), run=run)
