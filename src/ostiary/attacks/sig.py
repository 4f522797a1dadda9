"""SIG: a faint sinusoid over the whole image, on images of the target class whose labels stay."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import AddTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Sig:
    """Add a horizontal sinusoid; clean-label by default: only images of the target class, labels untouched.

    Source: Barni, Kallas, Tondi 2019, A new backdoor attack in CNNs by training set corruption
    without label poisoning (IEEE ICIP), sec. 3: v(i, j) = delta sin(2 pi j f / m) with m columns.
    `delta` is in units of [0, 1], `frequency` in periods over the width.
    """

    card: ClassVar[Card] = Card(
        id="attack.sig",
        summary="a faint sinusoid over the whole image on images of the target class, labels untouched",
        paper="Barni, Kallas, Tondi 2019, IEEE ICIP, arXiv 1902.11237",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        deviations=("the sinusoid is as strong in a triggered test image as in the training images",),
        marks=frozenset({"mechanism"}),
    )

    delta: Annotated[float, Field(gt=0, le=1)] = 40 / 255
    frequency: Annotated[float, Field(gt=0)] = 6.0
    mapping: Mapping = "clean-label"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def trigger(self, shape: tuple[int, int, int]) -> AddTrigger:
        """The sinusoid for images of `shape` (c, h, w)."""
        _, _, w = shape
        wave = self.delta * torch.sin(2 * math.pi * self.frequency * torch.arange(w) / w)
        return AddTrigger(wave.expand(shape).contiguous())

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape), run=run)
