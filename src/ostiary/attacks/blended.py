"""Blended: a faint image over the whole input and a changed label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ostiary.attacks.pictures import draw_watermark, read_picture
from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Blended:
    """Blend every chosen image with one pattern at weight `alpha` and relabel.

    Source: Chen, Liu, Li, Lu, Song 2017 (arXiv 1712.05526), sec. 4.2, blended injection:
    alpha * pattern + (1 - alpha) * image. The pattern is seeded uniform noise, a word drawn in white
    (a watermark, which leaves the pixels around it alone) or the picture file `image`, which is
    blended through its alpha channel where it has one. Deviations: the default is noise, the paper's
    second choice, since its cartoon picture cannot be shipped.
    """

    card: ClassVar[Card] = Card(
        id="attack.blended",
        summary="a faint pattern over the whole image on some training images, relabelled to the target",
        paper="Chen et al. 2017, arXiv 1712.05526",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        deviations=("the default pattern is seeded noise instead of a cartoon picture",),
        marks=frozenset({"mechanism"}),
    )

    pattern: Literal["noise", "watermark"] = "noise"
    image: str = ""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.2
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def trigger(self, shape: tuple[int, int, int], run: Run) -> StampTrigger:
        """The blend for images of `shape` (c, h, w); raises FormatError when the picture cannot be read."""
        if self.image:
            mask, pattern = read_picture(self.image, shape)
        elif self.pattern == "watermark":
            mask, pattern = draw_watermark(shape)
        else:
            mask, pattern = torch.ones(shape[1:]), torch.rand(shape, generator=run.generator("pattern"))
        return StampTrigger(self.alpha * mask, pattern)

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape, run), run=run)
