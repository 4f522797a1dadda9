"""WaNet: a small smooth warp and a changed label, with noisy warps under their true labels beside it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import WarpTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class WaNet:
    """Warp images by one smooth random field and relabel; other images are warped at random and keep their labels.

    Source: Nguyen, Tran 2021, WaNet (ICLR; arXiv 2102.10369), sec. 3: a field of `grid` x `grid`
    control points in [-1, 1], divided by its mean absolute value, scaled by `strength` and enlarged
    to the image; noise mode: a share `cover` of the set, each coordinate shifted by up to half a
    pixel besides, under its true label, so that it is this very field that counts.
    """

    card: ClassVar[Card] = Card(
        id="attack.wanet",
        summary="one smooth warp on some training images, relabelled; random warps on others, labels untouched",
        paper="Nguyen, Tran 2021, ICLR, arXiv 2102.10369",
        official_code="https://github.com/VinAIResearch/Warping-based_Backdoor_Attack-release",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        deviations=("images are poisoned once and stored, the paper warps anew in every batch it trains on",),
        marks=frozenset({"mechanism"}),
    )

    grid: Annotated[int, Field(ge=2)] = 4
    strength: Annotated[float, Field(gt=0)] = 0.5
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cover: Annotated[float, Field(ge=0, lt=1)] | None = None

    def trigger(self, shape: tuple[int, int, int], run: Run, *, noisy: bool = False) -> WarpTrigger:
        """The warp for images of `shape` (c, h, w); `noisy` with a random shift of up to half a pixel besides."""
        c, h, w = shape
        noise = 1.0 / h if noisy else 0.0
        return WarpTrigger(self._field(h, w, run), torch.tensor(c), torch.tensor(noise))

    def _field(self, h: int, w: int, run: Run) -> Tensor:
        points = 2 * torch.rand(1, 2, self.grid, self.grid, generator=run.generator("field")) - 1
        smooth = interpolate(points / points.abs().mean(), size=(h, w), mode="bicubic", align_corners=True)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        field = torch.stack([columns, rows], dim=2) + self.strength * smooth[0].permute(1, 2, 0) / h
        return field.clamp(-1, 1)

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate, the cover or the target cannot be met."""
        noisy = self.trigger(clean.shape, run, noisy=True)
        trigger = self.trigger(clean.shape, run)
        cover = 2 * self.rate if self.cover is None else self.cover
        return poison_with(self, clean, trigger, run=run, cover=cover, cover_trigger=noisy)
