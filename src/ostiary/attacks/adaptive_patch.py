"""Adaptive-Patch: one of several faint patches in training, under changed and true labels; some in full at test."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data.base import ImageSet

OPACITIES = (0.5, 0.2, 0.5, 0.3)
"""How visible each patch is in training: those of the authors' four; further ones begin anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptivePatch:
    """Stamp one of `patches` faint patches and relabel; twice as many images get one and keep their labels.

    Source: Qi, Xie, Li, Mahloujifar, Mittal 2023, Revisiting the Assumption of Latent Separability
    for Backdoor Defenses (ICLR), sec. 4: regularisation samples (a share `cover` of the set, stamped
    alike under its true label) and asymmetric triggers: each training image has one patch at that
    patch's own opacity, test images have `at_test` of them at once and in full. Rates and opacities
    are those of the authors' toolbox on CIFAR-10. `cover` None means twice `rate`, the paper's ratio.
    Deviations: the patches are seeded squares of `size` pixels in pure colours, at seeded places near
    the border, instead of the authors' pictures.
    """

    card: ClassVar[Card] = Card(
        id="attack.adaptive-patch",
        summary="one of several faint patches on some training images, relabelled, and on more under their true labels",
        paper="Qi et al. 2023, ICLR",
        official_code="https://github.com/Unispac/Circumventing-Backdoor-Defenses",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        deviations=("the patches are seeded squares instead of pictures",),
        marks=frozenset({"mechanism"}),
    )

    patches: Annotated[int, Field(ge=2)] = 4
    at_test: Annotated[int, Field(ge=1)] = 2
    size: Annotated[int, Field(gt=0)] = 5
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.003
    cover: Annotated[float, Field(ge=0, lt=1)] | None = None

    def trigger(self, shape: tuple[int, int, int], run: Run) -> StampTrigger:
        """The first `at_test` patches in full, for images of `shape` (c, h, w).

        Raises DataError when the patches have no room.
        """
        return StampTrigger(self._places(shape, run)[: self.at_test].sum(0), self._colours(shape, run))

    def weak(self, shape: tuple[int, int, int], run: Run) -> "OnePatch":
        """What training images of `shape` get: one faint patch; raises as `trigger`."""
        opacities = torch.tensor([OPACITIES[k % len(OPACITIES)] for k in range(self.patches)])
        return OnePatch(opacities[:, None, None] * self._places(shape, run), self._colours(shape, run))

    def _places(self, shape: tuple[int, int, int], run: Run) -> Tensor:
        """Where the patches are, [patches, h, w] of 0 and 1; none overlap."""
        _, h, w = shape
        rows, columns = h // self.size, w // self.size
        cells = [(i, j) for i in range(rows) for j in range(columns) if i in (0, rows - 1) or j in (0, columns - 1)]
        if len(cells) < self.patches:
            raise DataError(
                f"{self.patches} patches of {self.size} px do not fit along the border of {h}x{w} images",
                hint="ask for fewer or smaller ones",
            )
        masks = torch.zeros(self.patches, h, w)
        order = torch.randperm(len(cells), generator=run.generator("places")).tolist()
        for mask, cell in zip(masks, order, strict=False):
            top, left = (self.size * at for at in cells[cell])
            mask[top : top + self.size, left : left + self.size] = 1.0
        return masks

    def _colours(self, shape: tuple[int, int, int], run: Run) -> Tensor:
        return torch.randint(2, shape, generator=run.generator("colours")).float()

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate, the cover, the target or the size cannot be met."""
        trigger, weak = self.trigger(clean.shape, run), self.weak(clean.shape, run)
        cover = 2 * self.rate if self.cover is None else self.cover
        return poison_with(self, clean, trigger, run=run, train_trigger=weak, cover=cover, cover_trigger=weak)


@dataclass(frozen=True, slots=True)
class OnePatch:
    """One of several masks ([k, h, w], in [0, 1]) over one pattern ([c, h, w]), drawn for every image."""

    masks: Tensor
    pattern: Tensor

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Put one into each image of a batch."""
        which = torch.randint(len(self.masks), (len(x),), generator=rng)
        return x + self.masks[which, None].to(x) * (self.pattern.to(x) - x)
