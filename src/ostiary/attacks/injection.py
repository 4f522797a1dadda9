"""Injection: more images, under wrong labels, beside a set that stays as it is."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ostiary.attacks.label_flip import To, wrong_labels
from ostiary.attacks.poison import part_from_truth
from ostiary.attacks.truth import NONE, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data import load_uint8
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Injection:
    """Add images under wrong labels until they are a share `rate` of the resulting set; there is no trigger.

    Source: Biggio, Nelson, Laskov 2012, Poisoning attacks against support vector machines (ICML),
    sec. 3: points of the set are cloned and their labels flipped. Deviations: the clones are not
    optimised further; `what` may also be `noise`, images of uniform noise under labels at random, which
    show no class (true label -1).
    """

    card: ClassVar[Card] = Card(
        id="attack.injection",
        summary="copies or noise images added under wrong labels, without a trigger",
        paper="Biggio et al. 2012, ICML, arXiv 1206.6389",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    what: Literal["copies", "noise"] = "copies"
    to: To = "random"
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison a copy of `clean`; raises DataError when the rate rounds to no image."""
        n, classes = len(clean), len(clean.classes)
        count = math.floor(self.rate / (1 - self.rate) * n + 0.5)
        if count == 0:
            raise DataError(f"rate {self.rate:g} beside {n} samples means 0 poisoned", hint="raise the rate")
        source, rng = load_uint8(clean), run.generator("images")
        true = torch.full((count,), NONE)
        wrong = torch.randint(classes, (count,), generator=rng)
        if self.what == "copies":
            chosen = torch.randperm(n, generator=rng).repeat(-(-count // n))[:count]
            true = clean.labels[chosen]
            wrong = wrong_labels(true, classes, self.to, rng)
            added = source[chosen]
        else:
            added = torch.randint(0, 256, (count, *clean.shape), dtype=torch.uint8, generator=rng)
        pixels = torch.cat([source, added])
        labels, true = torch.cat([clean.labels, wrong]), torch.cat([clean.labels, true])
        return part_from_truth(
            self, clean, lambda rows: pixels[rows], labels, true, torch.arange(n + count) >= n, run=run
        )
