"""Reading a record's arrays: bounded, verified against the record, never unpickled."""

import hashlib
import io
import math
from pathlib import Path

import numpy as np

from ostiary.core.records import Record

MAX_BYTES = 1 << 30
MAX_SIDE = 1 << 14


class UnreadableError(Exception):
    """An array that is in the record but not in its folder as recorded."""


class Arrays:
    """The arrays of one record. `get` gives None both for absent ones and for unreadable ones.

    What could not be read is told in `problems`, each once, in order of first use.
    """

    def __init__(self, record: Record, folder: Path) -> None:
        self.record = record
        self.folder = folder
        self.problems: dict[str, str] = {}

    def get(self, name: str, ndim: int) -> np.ndarray | None:
        """The array `name` with `ndim` axes, or None."""
        if name not in self.record.artifacts or name in self.problems:
            return None
        try:
            return self._read(name, ndim)
        except UnreadableError as error:
            self.problems[name] = str(error)
        except (OSError, ValueError, EOFError, MemoryError):
            self.problems[name] = "missing, or not an array file"
        return None

    def _read(self, name: str, ndim: int) -> np.ndarray:
        artifact = self.record.artifacts[name]
        root = self.folder.resolve()
        path = (root / artifact.path).resolve()
        if not path.is_relative_to(root):
            raise UnreadableError("its path leaves the record's folder")
        if not path.is_file():
            raise UnreadableError("missing, or not an array file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UnreadableError("larger than 1 GiB")
        if hashlib.sha256(data).hexdigest() != artifact.sha256.lower().removeprefix("sha256:"):
            raise UnreadableError("its sha256 is not the one in the record")
        _check_header(data, artifact.shape, ndim)
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return array


def _check_header(data: bytes, shape: tuple[int, ...], ndim: int) -> None:
    """Refuse before anything of the claimed size is allocated."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise UnreadableError("missing, or not an array file")
    found, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if found != shape or len(found) != ndim or (ndim > 1 and max(found[1:]) > MAX_SIDE):
        raise UnreadableError(f"shape {found} is not the one expected")
    if dtype.kind not in "buif" or math.prod(found) * dtype.itemsize != len(data) - stream.tell():
        raise UnreadableError("its type or length is not the one expected")
