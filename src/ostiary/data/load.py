"""All pixels of a set at once, for training."""

import shutil
import tempfile

import numpy as np
import torch
from torch import Tensor

from ostiary.core.errors import OutputError
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images
from ostiary.data.base import as_image_set

GIB = 2**30


def load_uint8(data: LabelledSet[Images], limit: int = 2 * GIB) -> Tensor:
    """All pixels as uint8 [n, c, h, w]: in memory up to `limit` bytes, else in a mapped temporary file.

    The file lives in the system's temporary folder and is deleted with the tensor. OutputError if
    there is no room for it.
    """
    images = as_image_set(data)
    shape = (len(images), *images.shape)
    size = int(np.prod(shape, dtype=np.int64))
    out = torch.empty(shape, dtype=torch.uint8) if size <= limit else _mapped(shape, size)
    for rows, block in images.pixel_chunks():
        out[rows] = block
    return out


def _mapped(shape: tuple[int, ...], size: int) -> Tensor:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    # Checked first because a mapped file on a full disk ends the process instead of raising.
    if free < size:
        raise OutputError(
            f"{size / GIB:.1f} GiB of temporary space are needed, {free / GIB:.1f} GiB are free",
            hint="set TMPDIR to a folder on a larger disk, or use fewer samples",
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        # The mapping outlives the closed, nameless file; its blocks are freed with the mapping.
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))
