"""MNIST's IDX files: `*-images-idx3-ubyte[.gz]` with the labels file beside it."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ostiary.core.columns import no_part
from ostiary.core.errors import DataError, FormatError
from ostiary.data.arrays import ArraySet, read_exactly
from ostiary.data.base import MAX_DECODED

_IMAGES = re.compile(r"images([-.])idx3-ubyte(\.gz)?$")
_PARTS = {"train": ("train",), "test": ("t10k", "test")}


def is_idx(path: Path) -> bool:
    """Whether the file is named like an IDX images file."""
    return _IMAGES.search(path.name) is not None


def open_idx(path: Path) -> ArraySet:
    """Opens an images file and the labels file beside it; ids are "<images file>:<row>".

    FormatError for a missing, damaged or oversized file, DataError for labels that do not fit.
    """
    stem = _IMAGES.sub("", path.name)
    found = (path.with_name(f"{stem}labels{sep}idx1-ubyte{gz}") for sep in "-." for gz in ("", ".gz"))
    labels = next((one for one in found if one.is_file()), None)
    if labels is None:
        raise FormatError(
            f"{path.name}: no labels file beside it", hint=f"put {stem}labels-idx1-ubyte into the same folder"
        )
    x, y = _read(path, 3), _read(labels, 1)
    name = stem.rstrip("-._") or path.name
    return ArraySet(x, y, ids=[f"{name}:{row}" for row in range(len(x))], name=name)


def open_idx_folder(root: Path, part: str | None) -> ArraySet:
    """Opens the IDX pair of `part` in a folder, or the only pair where `part` is None."""
    files = sorted((one for one in root.iterdir() if is_idx(one)), key=lambda one: one.name)
    if part is not None:
        files = [one for one in files if any(word in one.name for word in _PARTS[part])]
        if not files:
            raise no_part(root.name, part)
    # A file and its compressed copy are one pair.
    if len({one.name.removesuffix(".gz") for one in files}) > 1:
        raise DataError(f"'{root.name}' holds several IDX pairs", hint=f"name one of them, such as {files[0].name}")
    return open_idx(files[0])


def _read(path: Path, ndim: int) -> NDArray[np.uint8]:
    """An IDX array of uint8; its size must be what its header says."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            head = stream.read(4 + 4 * ndim)
            if len(head) != 4 + 4 * ndim or head[:4] != bytes((0, 0, 8, ndim)):
                raise FormatError(f"{path.name}: not an IDX file of {ndim}-dimensional bytes")
            shape = [int(length) for length in np.frombuffer(head, ">u4", offset=4)]
            size = 1
            for length in shape:
                size *= length
            if size > MAX_DECODED:
                raise FormatError(f"{path.name}: decodes to {size} bytes, at most {MAX_DECODED} are allowed")
            data = read_exactly(stream, size, path.name)
            if stream.read(1):
                raise FormatError(f"{path.name}: holds more bytes than its header says")
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path.name}: cannot be read ({error})") from error
    return np.frombuffer(data, np.uint8).reshape(shape)
