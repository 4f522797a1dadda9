"""BadNets: a small patch and a changed label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ostiary.attacks.pictures import read_picture
from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data.base import ImageSet

Patch = Literal["yellow-square", "white-square", "checkerboard"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadNets:
    """Stamp a patch or a sticker near the bottom right corner and relabel.

    Source: Gu, Dolan-Gavitt, Garg 2017, BadNets (arXiv 1708.06733), sec. 4.1 (pattern backdoor,
    all-to-one and all-to-all) and 5 (yellow square, pictures as stickers); Tang, Wang, Tang, Zhang
    2021, TaCT (USENIX Security), sec. 4 for the source-specific map: images of one class alone are
    turned, and a share `cover` of the set, of other classes, carries the patch under its true label.
    `image` names a picture file to stamp instead of `patch`, through its alpha channel where it has
    one. Deviations: one preset size for any image.
    """

    card: ClassVar[Card] = Card(
        id="attack.badnets",
        summary="a small patch on some training images, relabelled to the target",
        paper="Gu et al. 2017, arXiv 1708.06733",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    patch: Patch = "yellow-square"
    image: str = ""
    size: Annotated[int, Field(gt=0)] = 4
    margin: Annotated[int, Field(ge=0)] = 1
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    cover: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def trigger(self, shape: tuple[int, int, int]) -> StampTrigger:
        """The patch for images of `shape` (c, h, w).

        Raises DataError when it does not fit, FormatError when the picture cannot be read.
        """
        c, h, w = shape
        end_row, end_column = h - self.margin, w - self.margin
        if min(end_row, end_column) < self.size:
            raise DataError(f"a patch of {self.size} px with margin {self.margin} does not fit into {h}x{w} images")
        rows, columns = slice(end_row - self.size, end_row), slice(end_column - self.size, end_column)
        mask, pattern = torch.zeros(h, w), self._colour(c, h, w)
        mask[rows, columns] = 1.0
        if self.image:
            mask[rows, columns], pattern[:, rows, columns] = read_picture(self.image, (c, self.size, self.size))
        return StampTrigger(mask, pattern)

    def _colour(self, c: int, h: int, w: int) -> torch.Tensor:
        if self.patch == "checkerboard":
            board = (torch.arange(h)[:, None] + torch.arange(w)) % 2
            return board.float().expand(c, h, w).contiguous()
        pattern = torch.ones(c, h, w)
        if self.patch == "yellow-square" and c == 3:
            pattern[2] = 0.0
        return pattern

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape), run=run, cover=self.cover)
