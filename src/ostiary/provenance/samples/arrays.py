"""Samples of array files, a block of rows at a time: `.npz` and MNIST's IDX."""

import gzip
import hashlib
import io
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ostiary.core.columns import Part, check_classes, no_part
from ostiary.core.errors import DataError, FormatError
from ostiary.core.idx_files import labels_beside
from ostiary.provenance.samples.leaf import Sample, array_prefix

DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, OSError)
MAX_LABELS = 2**30
"""Bytes that the labels of one file may take."""
MAX_ROW = 2**28
BLOCK = 4 * 2**20


def array_samples(
    names: Iterator[tuple[str, str | None]],
    count: int,
    row: tuple[str, tuple[int, ...]],
    stream: IO[bytes],
    source: str | None,
) -> Iterator[Sample]:
    """`count` samples; `names` are ids with labels, `row` is type and shape, `stream` gives the bytes of the rows.

    Raises EOFError when the stream ends early.
    """
    dtype, shape = row
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    begin, at_once = hashlib.sha256(array_prefix(dtype, shape)), max(1, BLOCK // size)
    for start in range(0, count, at_once):
        some = min(at_once, count - start)
        view = memoryview(_exactly(stream, size * some))
        for at in range(0, some * size, size):
            state = begin.copy()
            state.update(view[at : at + size])
            identity, label = next(names)
            yield Sample(identity, state.digest(), label, source)


def npz_samples(path: Path, part: Part, source: str | None) -> Iterator[Sample]:
    """The samples of `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`; names in `classes` or `class_names`.

    Ids are as `ostiary screen` says them: the number of the row, after `train:` or `test:` where there are parts. Only
    the arrays of the part are read. Without `y` the samples have no labels. Raises FormatError and DataError.
    """
    where = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {info.filename.removesuffix(".npy") for info in archive.infolist()}
            suffix = _suffix(keys, part, where)
            with archive.open(f"x{suffix}.npy") as stream:
                dtype, shape, fortran = _header(stream, f"{where}: member 'x{suffix}'")
                labels = _npz_labels(archive, keys, suffix, shape[0], where)
                prefix = f"{suffix[1:]}:" if suffix else ""
                ids = (f"{prefix}{row}" for row in range(shape[0]))
                rows = _turned(stream, dtype, shape) if fortran else stream
                names = zip(ids, labels, strict=False)
                yield from array_samples(names, shape[0], (dtype, shape[1:]), rows, source)
                if rows.read(1):
                    raise FormatError(f"{where}: member 'x{suffix}' holds more bytes than its header says")
    except DAMAGED as error:
        raise FormatError(f"{where}: not a readable .npz file ({error})", hint="save it again") from error


def idx_samples(path: Path, source: str | None) -> Iterator[Sample]:
    """The samples of an images file of MNIST's form with the labels file beside it. Raises FormatError."""
    beside, name = labels_beside(path)
    try:
        with _unpacked(beside) as stream:
            (count,) = _idx_header(stream, 1, beside.name)
            if count > MAX_LABELS:
                raise FormatError(f"{beside.name}: holds {count} labels, at most {MAX_LABELS} are read")
            labels = _exactly(stream, count)
            _ended(stream, beside.name)
        with _unpacked(path) as stream:
            shape = _idx_header(stream, 3, path.name)
            if shape[0] != count:
                raise DataError(f"{path.name}: {shape[0]} images and {count} labels")
            names = ((f"{name}:{row}", str(label)) for row, label in enumerate(labels))
            yield from array_samples(names, count, ("|u1", shape[1:]), stream, source)
            _ended(stream, path.name)
    except DAMAGED as error:
        raise FormatError(f"{path.name}: cannot be read ({error})") from error


def _suffix(keys: set[str], part: Part, where: str) -> str:
    """What follows x and y in the keys: nothing, "_train" or "_test"."""
    if f"x_{part}" in keys:
        return f"_{part}"
    if "x" in keys:
        if part == "train":
            return ""
        raise no_part(where, part)
    if keys & {"x_train", "x_test"}:
        raise no_part(where, part)
    names = ", ".join(sorted(keys)[:8]) or "nothing"
    raise DataError(f"{where}: holds {names}; x and y are needed", hint="numpy.savez(path, x=images, y=labels)")


def _header(stream: IO[bytes], where: str) -> tuple[str, tuple[int, ...], bool]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
    except (ValueError, KeyError) as error:
        raise FormatError(f"{where}: not a readable array ({error})") from error
    if dtype.hasobject or dtype.kind not in "biufU" or not shape or min(shape) < 0:
        raise FormatError(f"{where}: holds {dtype} values of shape {list(shape)}, which are not read")
    _check_row(shape[1:], dtype.itemsize, where)
    return dtype.str, tuple(shape), bool(fortran) and len(shape) > 1


def _turned(stream: IO[bytes], dtype: str, shape: tuple[int, ...]) -> IO[bytes]:
    """The rows of an array in Fortran order, which lie scattered: the only arrays that are held as a whole."""
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    values = np.frombuffer(_exactly(stream, size), dtype).reshape(shape, order="F")
    return io.BytesIO(np.ascontiguousarray(values).tobytes() + stream.read(1))


def _npz_labels(archive: zipfile.ZipFile, keys: set[str], suffix: str, count: int, where: str) -> Iterable[str | None]:
    if f"y{suffix}" not in keys:
        return itertools.repeat(None)
    values = _small(archive, f"y{suffix}", where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (count,):
        raise DataError(f"{where}: labels have shape {list(values.shape)} for {count} samples")
    named = next((key for key in ("classes", "class_names") if key in keys), None)
    names = check_classes([str(one) for one in _small(archive, named, where).ravel()], where) if named else None
    if values.dtype.kind == "U":
        return [str(value) for value in values]
    if values.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {values.dtype}, not integers or names")
    if names is None:
        return [str(value) for value in values.tolist()]
    wrong = np.flatnonzero((values < 0) | (values >= len(names)))
    if len(wrong):
        raise DataError(f"{where}: label {values[wrong[0]]} of sample {wrong[0]} is outside 0..{len(names) - 1}")
    return [names[value] for value in values.tolist()]


def _small(archive: zipfile.ZipFile, key: str, where: str) -> NDArray[Any]:
    with archive.open(f"{key}.npy") as stream:
        dtype, shape, fortran = _header(stream, f"{where}: member '{key}'")
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if size > MAX_LABELS:
            raise FormatError(f"{where}: member '{key}' has {size} bytes, at most {MAX_LABELS} are read")
        values: NDArray[Any] = np.frombuffer(_exactly(stream, size), dtype).reshape(
            shape, order="F" if fortran else "C"
        )
        _ended(stream, where)
        return values


def _unpacked(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _idx_header(stream: IO[bytes], ndim: int, where: str) -> tuple[int, ...]:
    head = stream.read(4 + 4 * ndim)
    if len(head) != 4 + 4 * ndim or head[:4] != bytes((0, 0, 8, ndim)):
        raise FormatError(f"{where}: not an IDX file of {ndim}-dimensional bytes")
    shape = tuple(int(length) for length in np.frombuffer(head, ">u4", offset=4))
    _check_row(shape[1:], 1, where)
    return shape


def _check_row(shape: tuple[int, ...], item: int, where: str) -> None:
    size = int(np.prod(shape, dtype=object)) * item
    if not 0 < size <= MAX_ROW:
        raise FormatError(f"{where}: one sample of shape {list(shape)} has {size} bytes, 1 to {MAX_ROW} are read")


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    """`size` bytes, taken in blocks so that a false header cannot claim memory; EOFError if fewer are left."""
    data = bytearray()
    while len(data) < size:
        block = stream.read(min(2**24, size - len(data)))
        if not block:
            raise EOFError(f"it ends after {len(data)} of {size} bytes")
        data += block
    return data


def _ended(stream: IO[bytes], where: str) -> None:
    if stream.read(1):
        raise FormatError(f"{where}: holds more bytes than its header says")
