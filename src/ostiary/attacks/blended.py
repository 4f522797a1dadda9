"""Blended: a faint image over the whole input and a changed label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from torch import Tensor

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import FormatError
from ostiary.core.run import Run
from ostiary.data.base import ImageSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Blended:
    """Blend every chosen image with one pattern at weight `alpha` and relabel.

    Source: Chen, Liu, Li, Lu, Song 2017 (arXiv 1712.05526), sec. 4.2, blended injection:
    alpha * pattern + (1 - alpha) * image. Deviations: the default pattern is seeded uniform noise,
    the paper's second choice, since its cartoon picture cannot be shipped; `image` takes any file.
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

    image: str = ""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.2
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def trigger(self, shape: tuple[int, int, int], run: Run) -> StampTrigger:
        """The blend for images of `shape` (c, h, w)."""
        _, h, w = shape
        return StampTrigger(torch.full((h, w), self.alpha), self._pattern(shape, run))

    def _pattern(self, shape: tuple[int, int, int], run: Run) -> Tensor:
        c, h, w = shape
        if not self.image:
            return torch.rand(c, h, w, generator=run.generator("pattern"))
        try:
            with Image.open(Path(self.image)) as picture:
                small = picture.convert("RGB" if c == 3 else "L").resize((w, h), Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError) as error:
            raise FormatError(f"cannot read the pattern image '{self.image}': {error}") from error
        return torch.from_numpy(np.asarray(small).reshape(h, w, c).copy()).permute(2, 0, 1).float() / 255.0

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape, run), run=run)
