"""The built-in set `digits`: 1797 handwritten digits that come with scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from ostiary.data.arrays import ArraySet
from ostiary.data.base import ImageSet
from ostiary.data.split import split

TRAIN, TEST = 1347, 450


def digits(part: str = "train") -> ImageSet:
    """The digits at 32x32 RGB, upsampled bilinearly from 8x8; ids are scikit-learn's row numbers.

    `part` is "train" (1347 samples) or "test" (450): a fixed split, stratified by class, seed 0.
    """
    source = load_digits()
    grey = torch.from_numpy(np.asarray(source.images, dtype=np.float32))[:, None]
    levels = interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False).mul(255 / 16).round()
    whole = ArraySet(
        levels.to(torch.uint8).expand(-1, 3, -1, -1).contiguous(),
        np.asarray(source.target),
        [str(digit) for digit in range(10)],
        [f"digits:{row}" for row in range(len(levels))],
        name=f"digits:{part}",
    )
    train, test = split(whole, (TRAIN, TEST), seed=0)
    return train if part == "train" else test
