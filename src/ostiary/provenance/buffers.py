"""A model read into memory of this process, with its manifest made of the very bytes that were kept."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ostiary.provenance.files import seal, shown, write_all
from ostiary.provenance.manifest import Algorithm, FileDigest, Manifest, each_file, hasher, pieces
from ostiary.provenance.refusal import Reason, Refused


@dataclass(frozen=True)
class Buffers:
    """The bytes of each file by name, what they are together, and whether they were a folder."""

    files: Mapping[str, memoryview]
    manifest: Manifest
    folder: bool

    def in_sha256(self) -> Manifest:
        """The manifest in SHA-256, in which scans and bills of materials name a model, whatever its signature is in."""
        if self.manifest.algorithm == "sha256":
            return self.manifest
        files = (
            FileDigest(file.path, file.size, hashlib.sha256(self.files[file.path]).digest())
            for file in self.manifest.files
        )
        return Manifest("sha256", tuple(files), self.manifest.empty_folders)

    def without(self, names: Sequence[str]) -> "Buffers":
        """These bytes but for the files and folders in `names`."""
        manifest = self.manifest.without(names)
        return Buffers({file.path: self.files[file.path] for file in manifest.files}, manifest, self.folder)


def read_all(path: Path, algorithm: Algorithm, *, limit: int) -> Buffers:
    """Read a file or a folder once, digesting each byte as it is kept.

    Raises as `digest`, and Refused (OS764) when there are more than `limit` bytes.
    """
    new, left = hasher(algorithm), [limit]

    def read(file: int, name: str) -> tuple[FileDigest, memoryview]:
        size = os.fstat(file).st_size
        left[0] -= size
        if left[0] < 0:
            raise Refused([Reason("OS764", shown(name), f"the model has more than {limit} bytes")])
        # From numpy, which does not write zeros first.
        kept, state = np.empty(size, np.uint8).data, new()
        for piece in pieces(file, name, kept):
            state.update(piece)
        return FileDigest(name, size, state.digest()), kept

    listing, found = each_file(path, read)
    manifest = Manifest(algorithm, tuple(file for file, _ in found), listing.empty_folders)
    return Buffers({file.path: kept for file, kept in found}, manifest, path.is_dir())


@contextmanager
def as_files(files: Mapping[str, memoryview], name: str | None) -> Iterator[Path]:
    """A folder that holds `files`, inside one called `name` if that is given, for as long as the block runs.

    On Linux they are sealed memory, to which nobody can write, its own process neither; elsewhere read-only copies.
    The folder around them is the user's alone.
    """
    handles: list[int] = []
    with TemporaryDirectory(prefix="ostiary-") as made:
        folder = Path(made) / name if name is not None else Path(made)
        try:
            for file, data in files.items():
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                if hasattr(os, "memfd_create"):
                    handles.append(_sealed(target.name, data))
                    target.symlink_to(f"/proc/{os.getpid()}/fd/{handles[-1]}")
                else:
                    target.write_bytes(data)
                    target.chmod(0o400)
            yield folder
        finally:
            for handle in handles:
                os.close(handle)


def _sealed(name: str, data: memoryview) -> int:
    handle = os.memfd_create(name[:100], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    write_all(handle, data)
    seal(handle)
    return handle
