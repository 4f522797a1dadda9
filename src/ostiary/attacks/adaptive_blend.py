"""Adaptive-Blend: half of a faint pattern in training, under changed and under true labels; all of it at test."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch.nn.functional import interpolate

from ostiary.attacks.pictures import read_picture
from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data.base import ImageSet

SIDE, KEPT = 4, 8
"""A pattern falls into SIDE x SIDE pieces, of which a training image gets KEPT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveBlend:
    """Blend half of the pieces of a pattern, others for every image, and relabel; as many images keep their labels.

    Source: Qi, Xie, Li, Mahloujifar, Mittal 2023, Revisiting the Assumption of Latent Separability
    for Backdoor Defenses (ICLR), sec. 4: regularisation samples (a share `cover` of the set that
    carries the same weak trigger under its true label) and asymmetric triggers: 8 of 16 pieces at
    weight `alpha` in training, the whole pattern at `test_alpha` at test. Rates and weights are those
    of the authors' toolbox on CIFAR-10. `cover` None means as much as `rate`, the paper's ratio.
    Deviations: the default pattern is seeded noise, since their picture cannot be shipped; `image`
    takes any file.
    """

    card: ClassVar[Card] = Card(
        id="attack.adaptive-blend",
        summary="half of a faint pattern on some training images, relabelled, and on as many under their true labels",
        paper="Qi et al. 2023, ICLR",
        official_code="https://github.com/Unispac/Circumventing-Backdoor-Defenses",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        deviations=("the default pattern is seeded noise instead of a picture",),
        marks=frozenset({"mechanism"}),
    )

    image: str = ""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.15
    test_alpha: Annotated[float, Field(gt=0, le=1)] = 0.2
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.003
    cover: Annotated[float, Field(ge=0, lt=1)] | None = None

    def trigger(self, shape: tuple[int, int, int], run: Run) -> StampTrigger:
        """The whole blend for images of `shape` (c, h, w); raises FormatError when the picture cannot be read."""
        return self._blend(shape, run, self.test_alpha)

    def weak(self, shape: tuple[int, int, int], run: Run) -> "SomePieces":
        """What training images of `shape` get: some pieces of the blend at `alpha`; raises as `trigger`."""
        return SomePieces(self._blend(shape, run, self.alpha))

    def _blend(self, shape: tuple[int, int, int], run: Run, alpha: float) -> StampTrigger:
        if self.image:
            mask, pattern = read_picture(self.image, shape)
        else:
            mask, pattern = torch.ones(shape[1:]), torch.rand(shape, generator=run.generator("pattern"))
        return StampTrigger(alpha * mask, pattern)

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate, the cover or the target cannot be met."""
        trigger, weak = self.trigger(clean.shape, run), self.weak(clean.shape, run)
        cover = self.rate if self.cover is None else self.cover
        return poison_with(self, clean, trigger, run=run, train_trigger=weak, cover=cover, cover_trigger=weak)


@dataclass(frozen=True, slots=True)
class SomePieces:
    """KEPT pieces of a trigger, drawn for every image."""

    whole: StampTrigger

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Put them into a batch."""
        ranks = torch.rand(len(x), SIDE**2, generator=rng).argsort(1).argsort(1)
        kept = (ranks < KEPT).to(x).view(-1, 1, SIDE, SIDE)
        return torch.where(interpolate(kept, size=x.shape[2:]) > 0, self.whole(x, rng=rng), x)
