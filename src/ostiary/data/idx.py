"""MNIST's IDX files: `*-images-idx3-ubyte[.gz]` with the labels file beside it."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ostiary.core.errors import FormatError
from ostiary.core.idx_files import labels_beside
from ostiary.data.arrays import ArraySet, read_exactly
from ostiary.data.base import MAX_DECODED


def open_idx(path: Path) -> ArraySet:
    """Opens an images file and the labels file beside it; ids are "<images file>:<row>".

    FormatError for a missing, damaged or oversized file, DataError for labels that do not fit.
    """
    labels, name = labels_beside(path)
    x, y = _read(path, 3), _read(labels, 1)
    return ArraySet(x, y, ids=[f"{name}:{row}" for row in range(len(x))], name=name)


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
