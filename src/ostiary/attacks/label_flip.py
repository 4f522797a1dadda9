"""Label flips: images as they are, under wrong labels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ostiary.attacks.poison import choose, part_from_truth
from ostiary.attacks.truth import Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.core.types import Labels
from ostiary.data import load_uint8
from ostiary.data.base import ImageSet

To = Literal["random", "next"]
"""Which wrong label: any other class at random, or y + 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFlip:
    """Give a share `rate` of the samples a wrong label, so that accuracy falls; there is no trigger.

    Source: Biggio, Nelson, Laskov 2011, Support vector machines under adversarial label noise (ACML),
    sec. 3, random flips, here among many classes: `to` any other class at random, or the `next` one,
    which hurts more as all flips of a class agree.
    """

    card: ClassVar[Card] = Card(
        id="attack.label-flip",
        summary="wrong labels on some training images, without a trigger",
        paper="Biggio et al. 2011, ACML",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    to: To = "random"
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when that is no sample."""
        labels = clean.labels
        flipped = choose(torch.ones_like(labels, dtype=torch.bool), self.rate, "poisoned", run.generator("choice"))
        wrong = wrong_labels(labels, len(clean.classes), self.to, run.generator("labels"))
        source = load_uint8(clean)
        return part_from_truth(
            self, clean, lambda rows: source[rows], torch.where(flipped, wrong, labels), labels, flipped, run=run
        )


def wrong_labels(labels: Labels, classes: int, to: To, rng: torch.Generator) -> Labels:
    """For each label another one."""
    step = torch.ones_like(labels) if to == "next" else torch.randint(1, classes, labels.shape, generator=rng)
    return (labels + step) % classes
