"""Image sets in memory: arrays and .npz files."""

import lzma
import zipfile
import zlib
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ostiary.core.columns import MAX_CLASSES, check_classes, no_part
from ostiary.core.errors import DataError, FormatError
from ostiary.data.base import MAX_DECODED, ImageSet, as_rows, check_ids, check_labels

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)

Array = NDArray[Any]

_FLOAT_STEP = 1e-3
"""How far, in levels of 255, a float pixel may lie from a whole level; float32 rounding stays far below it."""


class ArraySet(ImageSet):
    """Images held in memory.

    `x` is uint8 [n, c, h, w], [n, h, w, c] or [n, h, w] with 1 or 3 channels; floats are accepted
    when each is a multiple of 1/255 in [0, 1], so that nothing is lost. `labels` are class indices
    [n] (or names); `classes` default to "0".."max", `ids` to the row numbers. The arrays must not
    be changed afterwards. DataError for anything else.
    """

    def __init__(
        self,
        x: Array | Tensor,
        labels: Array | Tensor | Sequence[int],
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> None:
        array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if array.ndim not in (3, 4):
            raise DataError(
                f"{name}: images have shape {list(array.shape)}", hint="give [n, h, w], [n, c, h, w] or [n, h, w, c]"
            )
        names = tuple(str(row) for row in range(len(array))) if ids is None else check_ids(ids, name)
        if len(names) != len(array):
            raise DataError(f"{name}: {len(names)} ids for {len(array)} images")
        known = None if classes is None else check_classes(classes, name)
        indices, known = check_labels(given, names, known, name)
        self._x = torch.from_numpy(_as_levels(_channels_first(array, name), names, name))
        c, h, w = self._x.shape[1:]
        super().__init__(name=name, classes=known, labels=indices, ids=names, shape=(c, h, w))

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows` as uint8 [n, c, h, w]; a copy."""
        return self._x[as_rows(rows, len(self))]


def _channels_first(x: Array, where: str) -> Array:
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in (1, 3):
        if x.shape[3] not in (1, 3):
            raise DataError(
                f"{where}: images of shape {list(x.shape[1:])} have neither 1 nor 3 channels",
                hint="convert the images to grey or RGB",
            )
        x = x.transpose(0, 3, 1, 2)
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: images have shape {list(x.shape[1:])}, which holds no pixel")
    return x


def _as_levels(x: Array, ids: Sequence[str], where: str) -> NDArray[np.uint8]:
    """Pixels as contiguous, writable uint8 that torch can wrap."""
    if x.dtype == np.uint8:
        return np.require(x, np.uint8, ["C", "W"])
    if x.dtype.kind not in "iuf":
        raise DataError(f"{where}: pixels are {x.dtype}", hint="give uint8 pixels in 0..255")
    out = np.empty(x.shape, np.uint8)
    low, high = float(x.min()), float(x.max())
    if np.isnan(low):
        row = next(row for row in range(len(x)) if np.isnan(x[row].astype(np.float64)).any())
        raise DataError(f"{where}: a pixel of sample {ids[row]!r} is NaN")
    top = 1 if x.dtype.kind == "f" else 255
    if low < 0 or high > top:
        raise DataError(
            f"{where}: {x.dtype} pixels range from {low:g} to {high:g}, not within 0..{top}",
            hint="give uint8 pixels in 0..255",
        )
    for row in range(len(x)):
        levels = x[row].astype(np.float64) * (255 / top)
        whole = np.rint(levels)
        if np.abs(levels - whole).max() > _FLOAT_STEP:
            raise DataError(
                f"{where}: float pixels of sample {ids[row]!r} are not multiples of 1/255, so rounding would change "
                f"them (range {low:g} to {high:g})",
                hint="round them to uint8 pixels in 0..255 first",
            )
        out[row] = whole
    return out


def open_npz(path: Path, part: str) -> ArraySet:
    """Opens an .npz with `x`, `y` or `x_train`, `y_train`, `x_test`, `y_test`; optional `classes` or `class_names`.

    Other members are ignored and never read. FormatError for a damaged or oversized file,
    DataError for a missing member or part.
    """
    where = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            total = sum(info.file_size for info in sizes.values())
            if total > MAX_DECODED:
                raise FormatError(f"{where}: decodes to {total} bytes, at most {MAX_DECODED} are allowed")
            suffix = _suffix(set(sizes), part, where)

            def read(key: str) -> Array:
                info = sizes[key]
                with archive.open(info) as stream:
                    return _read_npy(stream, info.file_size, f"{where}: member '{key}'")

            x, y = read(f"x{suffix}"), read(f"y{suffix}")
            named = next((key for key in ("classes", "class_names") if key in sizes), None)
            classes = _class_names(read(named), where) if named else None
            if classes is None and y.dtype.kind != "U":
                classes = _numbered([read(key) for key in ("y", "y_train", "y_test") if key in sizes])
    except _DAMAGED as error:
        raise FormatError(
            f"{where}: not a readable .npz file ({error})", hint="save it again with numpy.savez"
        ) from error
    if y.dtype.kind not in "iufU":
        raise DataError(f"{where}: labels are {y.dtype}, not integers", hint="give one class index per sample")
    prefix = f"{suffix[1:]}:" if suffix else ""
    ids = [f"{prefix}{row}" for row in range(len(x))] if x.ndim else []
    return ArraySet(x, y, classes, ids, name=f"{where}:{suffix[1:]}" if suffix else where)


def _suffix(keys: set[str], part: str, where: str) -> str:
    """What follows x and y in the keys: nothing, "_train" or "_test"."""
    if {f"x_{part}", f"y_{part}"} <= keys:
        return f"_{part}"
    if {"x", "y"} <= keys:
        if part == "train":
            return ""
        raise no_part(where, part)
    if {"x_train", "y_train"} <= keys or {"x_test", "y_test"} <= keys:
        raise no_part(where, part)
    raise DataError(
        f"{where}: holds {', '.join(sorted(keys)[:8]) or 'nothing'}; x and y, or x_train and y_train, are needed",
        hint="save it with numpy.savez(path, x=images, y=labels)",
    )


def _read_npy(stream: IO[bytes], size: int, where: str) -> Array:
    """One array whose header must account for every byte of the member; object arrays are refused."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise FormatError(f"{where}: array format {version} is not supported")
    except ValueError as error:
        raise FormatError(f"{where}: not a readable array ({error})") from error
    if dtype.hasobject or dtype.kind not in "biufU":
        raise FormatError(f"{where}: holds {dtype} values, which are not read", hint="store numbers or strings only")
    count = 1
    for length in shape:
        count *= int(length)
    if min(shape, default=0) < 0 or stream.tell() + count * dtype.itemsize != size:
        raise FormatError(f"{where}: has {size} bytes, which do not match its shape {list(shape)} of {dtype}")
    data = read_exactly(stream, count * dtype.itemsize, where)
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array


def read_exactly(stream: IO[bytes] | BufferedIOBase, size: int, where: str) -> bytearray:
    """`size` bytes, taken in blocks so that a false header cannot claim memory; FormatError if fewer are left."""
    data = bytearray()
    while len(data) < size:
        block = stream.read(min(2**24, size - len(data)))
        if not block:
            raise FormatError(f"{where}: ends after {len(data)} of {size} bytes")
        data += block
    return data


def _class_names(names: Array, where: str) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{where}: class names are {names.dtype} {list(names.shape)}, not a list of strings")
    try:
        return check_classes([str(name) for name in names], where)
    except (SystemError, ValueError) as error:  # NumPy's words for a number that is no character
        raise DataError(f"{where}: a class name is no text") from error


def _numbered(labels: list[Array]) -> tuple[str, ...] | None:
    """Names "0".."max" over all parts, so that a part that lacks the last class has as many classes as the others."""
    tops = [int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"]
    return tuple(str(index) for index in range(max(tops) + 1)) if tops and 0 <= max(tops) < MAX_CLASSES else None
