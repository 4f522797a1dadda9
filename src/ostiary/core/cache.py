"""Arrays on the disk that whoever computes them leaves for the next: activations of a set, by model, set and layer.

`$OSTIARY_CACHE` (default `~/.cache/ostiary`) holds one folder an array. Each is written under a temporary name and
renamed when it is whole, so that neither a crash nor two processes at once leave half an array, and the least recently
used ones go when the limit of `$OSTIARY_CACHE_LIMIT` GB is reached (default 4; 0 keeps nothing on the disk). An array
that was taken away while somebody reads it stays readable to them.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ostiary.core.errors import ConfigError, OutputError

FILE = "values.npy"
ROOT = "~/.cache/ostiary"
LIMIT_GB = 4.0
STALE = 24 * 3600.0
"""Seconds after which a temporary folder belongs to a process that died."""


def key_of(*parts: str) -> str:
    """The name of an array in the cache: a digest of what decides its content."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ArrayCache:
    """Arrays in a folder of at most `limit` bytes, each under its key."""

    root: Path
    limit: int

    @classmethod
    def default(cls) -> "ArrayCache":
        """The cache that the environment names; raises ConfigError for a limit that is no number."""
        given = os.environ.get("OSTIARY_CACHE_LIMIT") or str(LIMIT_GB)
        try:
            limit = int(float(given) * 1e9)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"OSTIARY_CACHE_LIMIT is a number of GB, not '{given}'") from error
        root = os.path.expanduser(
            os.environ.get("OSTIARY_CACHE") or ROOT
        )  # unlike Path's it bears that there is no home
        return cls(Path(root), limit)

    @property
    def size(self) -> int:
        """Bytes that lie there."""
        return sum(path.stat().st_size for path in self.root.glob(f"*/{FILE}") if path.exists())

    def get(self, key: str) -> np.ndarray | None:
        """The array, mapped and not to be written to; None where there is none that can be read."""
        path = self.root / key / FILE
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path.parent)
        except OSError:
            return None
        except (ValueError, EOFError):  # damaged: make way for it to be written anew
            shutil.rmtree(path.parent, ignore_errors=True)
            return None
        return np.asarray(found) if isinstance(found, np.memmap) else None

    @contextlib.contextmanager
    def write(self, key: str, shape: tuple[int, ...], dtype: type[np.floating]) -> Iterator[np.ndarray]:
        """A mapped array to be filled; it is kept under `key` once the block succeeds.

        Where the cache has no room or cannot be written it is a temporary file that ends with its last reader. Raises
        OutputError when there is no room for that either.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        folder = self._folder(size)
        try:
            values = None if folder is None else _mapped(folder / FILE, shape, dtype)
            if values is not None and folder is not None:
                yield values
                values.flush()
                with contextlib.suppress(OSError):  # another process was faster: its array is the same
                    os.replace(folder, self.root / key)
                return
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as other:
            values = _mapped(Path(other) / FILE, shape, dtype)
            if values is None:
                raise OutputError(
                    f"no room on the disk for {size / 1e9:.1f} GB of activations in '{other}'",
                    hint="free space, or set TMPDIR or OSTIARY_CACHE to a larger disk",
                )
            yield values

    def _folder(self, size: int) -> Path | None:
        """A new temporary folder, with `size` bytes below the limit; None where there is none to be had."""
        if size > self.limit:
            return None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._evict(self.limit - size)
            return Path(tempfile.mkdtemp(prefix=".part-", dir=self.root))
        except OSError:
            return None

    def _evict(self, allowed: int) -> None:
        """Remove what was used least recently until `allowed` bytes are left, and what dead processes left."""
        kept, total = [], 0
        for folder in self.root.iterdir():
            try:
                used = folder.stat().st_mtime
                size = (folder / FILE).stat().st_size
            except OSError:
                used, size = folder.stat().st_mtime if folder.exists() else 0.0, 0
            if folder.name.startswith("."):
                if time.time() - used > STALE:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            kept.append((used, size, folder))
            total += size
        for _, size, folder in sorted(kept, key=lambda entry: entry[0]):
            if total <= allowed:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


NOWHERE = ArrayCache(Path(os.devnull), 0)
"""Keeps nothing: arrays end with their last reader."""


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.floating]) -> np.memmap | None:
    """A new mapped file whose blocks are allocated; None where the disk is full.

    Writing to a mapped file that the disk has no room for would end the process.
    """
    try:
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError:
        return None
    return values
