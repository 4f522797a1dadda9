"""What all image sets share: access in [0, 1], views of rows, ids and the content digest."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ostiary.core.columns import MAX_CLASSES, check_classes, is_line
from ostiary.core.errors import DataError
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images, Labels

MAX_DECODED = 16 * 2**30
"""Most bytes an array file may decode to."""

CHUNK_BYTES = 64 * 2**20
"""Decoded bytes that passes over a whole set hold at a time."""

BATCH_VALUES = 2**22
"""Input values in one batch: 256 images of 3x64x64, 27 of 3x224x224."""


class ImageSet(ABC):
    """Images of one size with labels: implements `LabelledSet[Images]`.

    Pixels are kept as uint8; `take` and `batches` give float32 [n, c, h, w] in [0, 1]. A set is
    immutable: digests are computed once. Subclasses give `pixels`, and override `pixel_batches`,
    `stored` and `stored_span` where the storage has a faster order or its own bytes.
    """

    def __init__(
        self, *, name: str, classes: Sequence[str], labels: Labels, ids: Sequence[str], shape: tuple[int, int, int]
    ) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.labels = labels
        self.ids = ids
        self.shape = shape

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, n={len(self)}, shape={self.shape}, classes={len(self.classes)})"

    @abstractmethod
    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows` as uint8 [n, c, h, w], in that order."""

    def pixel_batches(self, size: int, /) -> Iterator[Tensor]:
        """All samples in order as uint8 [<= size, c, h, w]; reads each sample once."""
        for start in range(0, len(self), size):
            yield self.pixels(range(start, min(start + size, len(self))))

    def pixel_chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples as (rows, uint8 pixels), in the order that is cheapest to read, a bounded number at a time."""
        start = 0
        for block in self.pixel_batches(self.chunk_rows):
            yield torch.arange(start, start + len(block)), block
            start += len(block)

    def stored(self) -> Iterator[bytes]:
        """Each sample's bytes as stored, in order; the digest is taken over them."""
        for block in self.pixel_batches(self.chunk_rows):
            yield from (image.tobytes() for image in block.numpy())

    def stored_span(self, start: int, stop: int, /) -> Iterator[bytes]:
        """What `stored` gives for rows `start` to `stop`, without reading the others."""
        for at in range(start, stop, self.chunk_rows):
            block = self.pixels(range(at, min(at + self.chunk_rows, stop)))
            yield from (image.tobytes() for image in block.numpy())

    def take(self, rows: Sequence[int] | Tensor, /) -> Images:
        """The samples at `rows` as float32 in [0, 1], in that order."""
        return to_unit(self.pixels(rows))

    def batches(self, size: int, /) -> Iterator[tuple[Images, Labels]]:
        """All samples in order, `size` at a time, as (float32 images in [0, 1], labels); reads each sample once."""
        start = 0
        for block in self.pixel_batches(size):
            yield to_unit(block), self.labels[start : start + len(block)]
            start += len(block)

    def subset(self, rows: Sequence[int] | Tensor, /) -> "ImageSet":
        """A view of `rows`; ids stay the same, the digest is the view's own."""
        return Subset(self, as_rows(rows, len(self)))

    @property
    def chunk_rows(self) -> int:
        """How many samples a pass over the whole set holds at a time."""
        c, h, w = self.shape
        return max(1, min(1024, CHUNK_BYTES // (c * h * w)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over class names, shape, and every sample's id, label and bytes as stored."""
        head = json.dumps({"classes": self.classes, "shape": self.shape}, ensure_ascii=True)
        return hashlib.sha256(hashlib.sha256(head.encode()).digest() + self.sample_digests.tobytes()).hexdigest()

    @cached_property
    def sample_digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each sample's id, label and bytes as stored, uint8 [n, 32]."""
        out = np.empty((len(self), 32), np.uint8)
        labels = self.labels.tolist()
        for row, (identity, data) in enumerate(zip(self.ids, self.stored(), strict=True)):
            # The JSON text ends at its closing bracket, so no id can be mistaken for sample bytes.
            value = hashlib.sha256(json.dumps([identity, labels[row]]).encode())
            value.update(data)
            out[row] = np.frombuffer(value.digest(), np.uint8)
        return out


class Subset(ImageSet):
    """A view of some rows of another set; keeps their ids and order."""

    def __init__(self, base: ImageSet, rows: Tensor) -> None:
        super().__init__(
            name=base.name,
            classes=base.classes,
            labels=base.labels[rows],
            ids=tuple(base.ids[row] for row in rows.tolist()),
            shape=base.shape,
        )
        self.base = base
        self.rows = rows

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows` of this view as uint8 [n, c, h, w]."""
        return self.base.pixels(self.rows[as_rows(rows, len(self))])

    def pixel_chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples as (rows, uint8 pixels), in the order of the underlying set."""
        order = self.rows.argsort()
        for start in range(0, len(self), self.chunk_rows):
            rows = order[start : start + self.chunk_rows]
            yield rows, self.pixels(rows)

    def subset(self, rows: Sequence[int] | Tensor, /) -> ImageSet:
        """A view of `rows` of this view."""
        return Subset(self.base, self.rows[as_rows(rows, len(self))])

    @cached_property
    def sample_digests(self) -> NDArray[np.uint8]:
        """The underlying set's digests of these rows, uint8 [n, 32]."""
        return self.base.sample_digests[self.rows.numpy(), :]


class Span(ImageSet):
    """Rows `start` to `stop` of another set, read and digested by themselves: the others are never read."""

    def __init__(self, base: ImageSet, start: int, stop: int) -> None:
        labels, ids = base.labels[start:stop], base.ids[start:stop]
        super().__init__(name=base.name, classes=base.classes, labels=labels, ids=ids, shape=base.shape)
        self._base, self._start = base, start

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows` of this span as uint8 [n, c, h, w]."""
        return self._base.pixels(as_rows(rows, len(self)) + self._start)

    def stored(self) -> Iterator[bytes]:
        """The bytes of each sample of this span as the whole set stores them, in order."""
        return self._base.stored_span(self._start, self._start + len(self))


class _Adapted(ImageSet):
    """A foreign labelled set of images, its samples rounded to uint8."""

    def __init__(self, data: LabelledSet[Images]) -> None:
        c, h, w = data.take([0]).shape[1:]
        super().__init__(name="images", classes=data.classes, labels=data.labels, ids=data.ids, shape=(c, h, w))
        self._data = data

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        return to_uint8(self._data.take(rows))

    def pixel_batches(self, size: int, /) -> Iterator[Tensor]:
        return (to_uint8(x) for x, _ in self._data.batches(size))


def as_image_set(data: LabelledSet[Images]) -> ImageSet:
    """`data` itself if it is an `ImageSet`, else a view of it that gives uint8 pixels."""
    return data if isinstance(data, ImageSet) else _Adapted(data)


def batch_size(shape: Sequence[int], most: int = 128) -> int:
    """Samples of `shape` to run at once: `most`, fewer for large images, whose activations would fill the memory."""
    return max(8, min(most, BATCH_VALUES // int(np.prod(shape))))


def to_unit(pixels: Tensor) -> Images:
    """uint8 pixels as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def to_uint8(images: Images) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest level; the inverse of `to_unit`."""
    return images.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def as_rows(rows: Sequence[int] | Tensor, n: int) -> Tensor:
    """Row numbers as an int64 tensor; IndexError outside 0..n-1, TypeError for masks and floats."""
    out = torch.as_tensor(rows if isinstance(rows, Tensor) else np.asarray(rows))
    if out.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if out.dtype in (torch.bool, torch.uint8) or out.is_floating_point() or out.ndim != 1:
        raise TypeError(f"rows must be a flat list of integers, not {out.dtype} of {out.ndim} dimensions")
    if int(out.min()) < 0 or int(out.max()) >= n:
        raise IndexError(f"rows must lie in 0..{n - 1}, got {int(out.min())}..{int(out.max())}")
    return out.to("cpu", torch.int64)


def check_ids(ids: Sequence[str], where: str) -> tuple[str, ...]:
    """Ids as a tuple; DataError if two samples share one, or one is not a line of text."""
    out = tuple(ids)
    if (bad := next((one for one in out if not is_line(one)), None)) is not None:
        raise DataError(f"{where}: the id {bad!r} is not a line of text", hint="give every sample an id of its own")
    if len(set(out)) != len(out):
        seen: set[str] = set()
        twice = next(one for one in out if one in seen or seen.add(one))  # type: ignore[func-returns-value]  # add gives None
        raise DataError(f"{where}: the id {twice!r} names two samples", hint="give every sample an id of its own")
    return out


def check_labels(
    values: NDArray[Any], ids: Sequence[str], classes: Sequence[str] | None, where: str
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as int64 [n] and the class names.

    Strings are numbered in the order of `classes`, or sorted where there are none; for integers
    without `classes` the names are "0".."max". DataError for a label that is not an integer, has no
    class, or when there are not as many labels as samples.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != len(ids):
        raise DataError(
            f"{where}: labels have shape {list(values.shape)} for {len(ids)} samples",
            hint="give one class index per sample",
        )
    if len(ids) == 0:
        raise DataError(f"{where}: the set is empty", hint="give a set with at least one sample")
    if values.dtype.kind == "U":
        return _encode_names([str(value) for value in values], ids, classes, where)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{where}: labels are {values.dtype}, not integers", hint="give one class index per sample")
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)))
        if len(bad):
            raise DataError(f"{where}: label {values[bad[0]]} of sample {ids[bad[0]]!r} is not an integer")
    count = len(classes) if classes is not None else max(1, min(int(values.max()) + 1, MAX_CLASSES))
    bad = np.flatnonzero((values < 0) | (values >= count))
    if len(bad):
        row = bad[0]
        raise DataError(
            f"{where}: label {int(values[row])} of sample {ids[row]!r} is outside 0..{count - 1}",
            hint="labels count from 0; give a name for every class",
        )
    names = tuple(classes) if classes is not None else tuple(str(index) for index in range(count))
    return torch.from_numpy(values.astype(np.int64)), names


def _encode_names(
    values: list[str], ids: Sequence[str], classes: Sequence[str] | None, where: str
) -> tuple[Labels, tuple[str, ...]]:
    names = tuple(classes) if classes is not None else check_classes(sorted(set(values)), where)
    index = {name: number for number, name in enumerate(names)}
    for value, identity in zip(values, ids, strict=True):
        if value not in index:
            raise DataError(f"{where}: label {value!r} of sample {identity!r} is not among the class names")
    return torch.tensor([index[value] for value in values], dtype=torch.int64), names


def require_classes(data: ImageSet, minimum: int = 2) -> None:
    """DataError unless at least `minimum` classes have samples."""
    present = int((torch.bincount(data.labels, minlength=len(data.classes)) > 0).sum())
    if present < minimum:
        raise DataError(
            f"'{data.name}' has samples of {present} class{'' if present == 1 else 'es'}, {minimum} are needed",
            hint="give a set with samples of more classes",
        )
