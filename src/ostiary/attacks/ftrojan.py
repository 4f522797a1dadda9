"""FTrojan: two strengthened frequencies, in the colours alone where there are any."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.fft import idctn
from torch import Tensor

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import AddTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet

TO_RGB = ((0.0, 1.13983), (-0.39465, -0.58060), (2.03211, 0.0))
"""What one unit of U and of V adds to red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FTrojan:
    """Raise a middle and a high frequency of the chroma channels by a fixed amount, block by block, and relabel.

    Source: Wang, Yao, Xu, An, Tong, Wang 2022, An Invisible Black-box Backdoor Attack through
    Frequency Domain (ECCV; arXiv 2111.10991), sec. 3.2: to YUV, discrete cosine transform of blocks
    of `window` pixels, `magnitude` (in levels of 255) added at (window/2 - 1, window/2 - 1) and
    (window - 1, window - 1) of U and V. The transform is linear, so this is one fixed signal added to
    the pixels. Grey images have it in their one channel. Blocks cut off at the border are left alone.
    """

    card: ClassVar[Card] = Card(
        id="attack.ftrojan",
        summary="two strengthened frequencies of the colours on some training images, relabelled to the target",
        paper="Wang et al. 2022, ECCV, arXiv 2111.10991",
        needs=Needs(modality="images", training_data=True),
        cost="one pass over the data",
        marks=frozenset({"mechanism"}),
    )

    magnitude: Annotated[float, Field(gt=0)] = 30.0
    window: Annotated[int, Field(ge=4)] = 32
    mapping: Mapping = "all-to-one"
    target: Annotated[int, Field(ge=0)] = 0
    source: Annotated[int, Field(ge=0)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def trigger(self, shape: tuple[int, int, int]) -> AddTrigger:
        """The signal for images of `shape` (c, h, w)."""
        c, h, w = shape
        block = min(self.window, h, w)
        tile = self._tile(block)
        plane = torch.zeros(h, w)
        for top in range(0, h - block + 1, block):
            for left in range(0, w - block + 1, block):
                plane[top : top + block, left : left + block] = tile
        gains = [sum(row) for row in TO_RGB] if c == 3 else [1.0] * c
        return AddTrigger(torch.stack([gain * plane for gain in gains]))

    def _tile(self, block: int) -> Tensor:
        """The two cosines of one block, in units of [0, 1]."""
        spectrum = torch.zeros(block, block, dtype=torch.float64)
        for at in (block // 2 - 1, block - 1):
            spectrum[at, at] = self.magnitude / 255
        return torch.from_numpy(idctn(spectrum.numpy(), norm="ortho")).float()

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        return poison_with(self, clean, self.trigger(clean.shape), run=run)
