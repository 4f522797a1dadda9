"""Image sets as plain arrays in a folder, mapped into memory: many processes read one copy, nothing is decoded."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ostiary.core.columns import check_classes
from ostiary.core.errors import FormatError
from ostiary.core.files import atomic
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images
from ostiary.data.base import ImageSet, as_image_set, as_rows, check_ids, check_labels


class PackedSet(ImageSet):
    """The set that `write_packed` wrote into `folder`; its pixels stay on the disk and in the system's cache.

    Raises FormatError when the folder is missing or ill-formed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / "set.json").read_text(encoding="utf-8"))
            pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / "labels.npy", allow_pickle=False)
            classes = check_classes(about["classes"], str(folder))
            ids = check_ids(about["ids"], str(folder)) if about["ids"] else _numbers(len(labels))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"'{folder}' is not a packed image set: {error}", hint="write it anew") from error
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or len(pixels) != len(ids):
            raise FormatError(f"'{folder}' is not a packed image set: {pixels.dtype} {pixels.shape} for {len(ids)} ids")
        known, classes = check_labels(labels, ids, classes, str(folder))
        self._pixels = pixels
        c, h, w = pixels.shape[1:]
        super().__init__(name=folder.name, classes=classes, labels=known, ids=ids, shape=(c, h, w))

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows` as uint8 [n, c, h, w]; a copy."""
        return torch.from_numpy(self._pixels[as_rows(rows, len(self)).numpy()])


def write_packed(folder: Path, data: LabelledSet[Images]) -> None:
    """Write pixels, labels, class names and ids of `data` into a new folder; raises OutputError."""
    images = as_image_set(data)
    with atomic(folder) as temporary:
        temporary.mkdir()
        # .npy says its shape in the header, so the pixels can be filled in batch by batch.
        out = np.lib.format.open_memmap(
            temporary / "pixels.npy", mode="w+", dtype=np.uint8, shape=(len(images), *images.shape)
        )
        for rows, block in images.pixel_chunks():
            out[rows.numpy()] = block.numpy()
        out.flush()
        np.save(temporary / "labels.npy", images.labels.numpy(), allow_pickle=False)
        plain = tuple(images.ids) == _numbers(len(images))
        about = {"classes": list(images.classes), "ids": [] if plain else list(images.ids)}
        (temporary / "set.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(f"{number:06d}" for number in range(n))
