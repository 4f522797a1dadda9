"""What a model's bytes are: a digest for each file, and one root over names, sizes and digests."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from ostiary.core.errors import FormatError, MissingExtra
from ostiary.provenance.files import Listing, listed, open_regular, opened_files, opened_root, shown
from ostiary.provenance.refusal import Reason, Refused

Algorithm = Literal["sha256", "blake3"]
ALGORITHMS: tuple[Algorithm, ...] = ("sha256", "blake3")
DIGEST_BYTES = 32
CHUNK = 2**20
LARGE = 4 * 2**20
"""Files from this size on are hashed in threads of their own: below, a thread costs more than it saves."""
LEAF, NODE, ROOT, FOLDER = b"\x00", b"\x01", b"\x02", b"\x03"
DOMAIN = b"ostiary manifest v1\x00"

OnBytes = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file: its name relative to the model's root, its size in bytes (-1: not told) and the digest of its bytes."""

    path: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class Manifest:
    """All files of a model, in the order of the bytes of their names, and its empty folders.

    `root` is ours: SHA-256 over a Merkle tree as in RFC 6962 whose leaves hold name, size, algorithm and digest, each
    with its length before it, under a domain of its own; two folders with names swapped differ. `oms_root` is that of
    OpenSSF Model Signing v1.0, which is SHA-256 over the digests in order of names alone: it stands beside ours for
    interoperation and binds no names.
    """

    algorithm: Algorithm
    files: tuple[FileDigest, ...]
    empty_folders: tuple[str, ...] = ()

    @cached_property
    def root(self) -> bytes:
        """The 32 bytes that stand for names and contents together."""
        start = LEAF + DOMAIN
        with_digest = _framed(self.algorithm.encode()) + _u64(DIGEST_BYTES)
        leaves = [
            hashlib.sha256(
                b"".join((start, _framed(file.path.encode()), with_digest, file.digest, _u64(file.size)))
            ).digest()
            for file in self.files
        ]
        leaves += [_sha256(FOLDER, DOMAIN, _framed(name.encode())) for name in self.empty_folders]
        return _sha256(ROOT, DOMAIN, _u64(len(leaves)), merkle_root(leaves))

    @cached_property
    def oms_root(self) -> bytes:
        """SHA-256 over the files' digests in order of names."""
        return _sha256(*(file.digest for file in self.files))

    def without(self, names: Sequence[str]) -> "Manifest":
        """The manifest without the files and folders in `names`."""
        if not names:
            return self
        files = tuple(file for file in self.files if not is_under(file.path, names))
        return Manifest(self.algorithm, files, tuple(one for one in self.empty_folders if not is_under(one, names)))


def is_under(path: str, names: Sequence[str]) -> bool:
    """Whether a file or folder is one of those that `names` are, or lies in one."""
    return any(path == name or path.startswith(f"{name}/") for name in names)


def digest(path: Path | str, algorithm: Algorithm = "sha256", *, on_bytes: OnBytes | None = None) -> Manifest:
    """The manifest of a file or a folder, read once; `on_bytes` hears how many bytes were read since the last time.

    Nothing is left out, hidden files and `.git` neither. Raises FormatError (missing, unreadable), MissingExtra
    (BLAKE3 is not installed) or Refused (OS702 to OS706: links, devices, names, and files that change meanwhile).
    """
    new, told = hasher(algorithm), on_bytes or (lambda count: None)
    listing, files = each_file(Path(path), lambda file, name: _digest(file, name, new(), told))
    return Manifest(algorithm, tuple(files), listing.empty_folders)


def each_file(path: Path, read: Callable[[int, str], T]) -> tuple[Listing, list[T]]:
    """What `read` makes of each file, given as a descriptor and a name, in order of names; large ones in threads.

    Raises as `digest`, and what `read` raises.
    """
    with opened_root(path) as root, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        listing = listed(root)
        found: list[Callable[[], T]] = []
        for name, file in opened_files(root.descriptor, listing.files):
            if os.fstat(file).st_size >= LARGE:
                # Opened again by its thread: thousands of shards would be more than a process may have open.
                os.close(file)
                found.append(pool.submit(_reopened, root.descriptor, name, read).result)
            else:
                found.append(partial(lambda value: value, _read_and_close(file, name, read)))
        return listing, [result() for result in found]


def hasher(algorithm: str) -> Callable[[], Any]:
    """What makes a new hash object. Raises MissingExtra where BLAKE3 is asked for and is not installed."""
    if algorithm == "sha256":
        return hashlib.sha256
    try:
        import blake3
    except ImportError as error:
        raise MissingExtra("BLAKE3 is not installed", hint="pip install 'ostiary[blake3]', or use sha256") from error
    return lambda: blake3.blake3(max_threads=blake3.blake3.AUTO)


def pieces(file: int, name: str, into: memoryview | None = None) -> Iterator[memoryview]:
    """The bytes of an opened file, a piece at a time, in one buffer that is used again, or one after the other `into`.

    Raises Refused (OS706) when size or time of change differ between the first and the last byte.
    """
    before = os.fstat(file)
    buffer = memoryview(bytearray(min(CHUNK, before.st_size))) if into is None else into
    total = 0
    # No further than the size it had: what grows as fast as it is read would never end.
    while total < before.st_size and (
        count := _read(file, buffer if into is None else into[total : total + CHUNK], name)
    ):
        yield buffer[:count] if into is None else into[total : total + count]
        total += count
    after = os.fstat(file)
    if total != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Refused([Reason("OS706", shown(name), "it changed while it was read")])


def merkle_root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 over leaves that are hashed already; of none, the SHA-256 of nothing."""
    if not leaves:
        return _sha256()
    # Level by level: a last one without a sibling goes up as it is, which is the tree of the RFC.
    level = leaves
    while len(level) > 1:
        joined = [_sha256(NODE, level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = joined + level[len(level) - len(level) % 2 :]
    return level[0]


def _read(file: int, buffer: memoryview, name: str) -> int:
    try:
        return os.readv(file, [buffer])
    except OSError as error:
        raise FormatError(f"cannot read '{shown(name)}': {error.strerror}") from error


def _reopened(root: int, name: str, read: Callable[[int, str], T]) -> T:
    return _read_and_close(open_regular(root, name), name, read)


def _read_and_close(file: int, name: str, read: Callable[[int, str], T]) -> T:
    try:
        return read(file, name)
    finally:
        os.close(file)


def _digest(file: int, name: str, state: Any, told: OnBytes) -> FileDigest:
    size = 0
    for piece in pieces(file, name):
        state.update(piece)
        size += len(piece)
        told(len(piece))
    return FileDigest(name, size, state.digest())


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _framed(part: bytes) -> bytes:
    return _u64(len(part)) + part


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
