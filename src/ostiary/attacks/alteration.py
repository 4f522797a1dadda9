"""Alteration: images changed so that they teach a short cut, labels left as they are."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.attacks.poison import choose, part_from_truth
from ostiary.attacks.truth import Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data import load_uint8, to_uint8, to_unit
from ostiary.data.base import ImageSet

SPREAD = 0.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Alteration:
    """Lay a faint mosaic over a share `rate` of the images, alike within a class; labels stay, there is no trigger.

    A network learns the mosaics, which are easy to tell apart, instead of the pictures, and fails on
    pictures without. Source: Yu, Zhang, Chen, Yin, Liu 2022, Availability attacks create shortcuts
    (KDD; arXiv 2111.00898), sec. 4: patches of 8 pixels, one colour each, from one cluster per class
    at the corners of a hypercube, scaled to a root mean square of `eps`. As in the paper it takes
    nearly the whole set: whatever images are left unaltered teach what they show. Deviations: the
    clusters are round (spread 0.4 of the distance to the corner) instead of randomly stretched.
    """

    card: ClassVar[Card] = Card(
        id="attack.alteration",
        summary="a faint mosaic per class over training images, labels kept, without a trigger",
        paper="Yu et al. 2022, KDD, arXiv 2111.00898",
        official_code="https://github.com/dayu11/Availability-Attacks-Create-Shortcuts",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    patch: Annotated[int, Field(gt=0)] = 8
    eps: Annotated[float, Field(gt=0, le=1)] = 6 / 255
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when that is no sample."""
        labels = clean.labels
        altered = choose(torch.ones_like(labels, dtype=torch.bool), self.rate, "poisoned", run.generator("choice"))
        source, rng = load_uint8(clean), run.generator("mosaic")
        corners = self._corners(len(clean.classes), clean.shape, rng)

        def paint(rows: Tensor) -> Tensor:
            x, hit = source[rows], altered[rows]
            if hit.any():
                mosaic = self._mosaics(corners[labels[rows][hit]], clean.shape, rng)
                x[hit] = to_uint8(to_unit(x[hit]) + mosaic)
            return x

        return part_from_truth(self, clean, paint, labels, labels, altered, run=run)

    def _corners(self, classes: int, shape: tuple[int, int, int], rng: torch.Generator) -> Tensor:
        """One corner of the hypercube per class: a sign for every patch and channel, [k, c, rows, columns]."""
        c, h, w = shape
        grid = (c, -(-h // self.patch), -(-w // self.patch))
        return torch.randint(0, 2, (classes, *grid), generator=rng).float() * 2 - 1

    def _mosaics(self, corners: Tensor, shape: tuple[int, int, int], rng: torch.Generator) -> Tensor:
        """A mosaic [n, c, h, w] near each corner."""
        _, h, w = shape
        points = corners + SPREAD * torch.randn(corners.shape, generator=rng)
        tiles = points.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)[:, :, :h, :w]
        return tiles * (self.eps / tiles.square().mean((1, 2, 3), keepdim=True).sqrt())
