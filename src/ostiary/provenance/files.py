"""The files of a model, listed and opened so that no name leads anywhere else."""

import errno
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ostiary.core.errors import FormatError
from ostiary.provenance.refusal import Reason, Refused

MAX_FILES = 1_000_000
MAX_DEPTH = 64
NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Without O_NONBLOCK, opening a named pipe would wait for a writer for ever."""
SPECIAL = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of a model: regular files, and folders that hold nothing, relative to its root, in order of bytes.

    A model that is one file has one name, its own.
    """

    files: tuple[str, ...]
    empty_folders: tuple[str, ...] = ()


def read_up_to(path: Path, limit: int) -> bytes:
    """The bytes of a small file, at most one more than `limit`: who needs it whole looks at the length.

    Raises FileNotFoundError, or FormatError for what cannot be read or is no regular file.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(file, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FormatError(f"'{path}' is no regular file", hint="give the file itself")
            return stream.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {error.strerror}") from error


def read_small(path: Path, limit: int) -> bytes:
    """All bytes of a small file. Raises FormatError when it is missing, unreadable or has more than `limit` bytes."""
    try:
        data = read_up_to(path, limit)
    except FileNotFoundError as error:
        raise FormatError(f"no such file: '{path}'", hint="check the path") from error
    if len(data) > limit:
        raise FormatError(f"'{path}' is too large: it has more than {limit} bytes")
    return data


def write_all(handle: int, data: bytes | memoryview) -> None:
    """Write to a descriptor until all of `data` is written."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def seal(handle: int) -> None:
    """Make memory behind a descriptor unchangeable, for this process, too; on Linux alone."""
    import fcntl

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)


def require(path: Path) -> None:
    """Raises FormatError when nothing is at `path`: a mistyped name is no refusal."""
    if not os.path.lexists(path):
        raise FormatError(f"no such file: '{path}'", hint="check the path of the model")


@dataclass(frozen=True, slots=True)
class Root:
    """A folder as a descriptor that later swaps do not move; `file` is the name of a model that is one file in it."""

    descriptor: int
    file: str | None = None


@contextmanager
def opened_root(path: Path) -> Iterator[Root]:
    """The folder of a model, or the folder that its one file lies in, for as long as the block runs.

    Raises FormatError when `path` is missing or cannot be read, Refused (OS702) when it is a symbolic link.
    """
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise Refused([Reason("OS702", path.name, "it is a symbolic link")], hint="name what it points to")
        # What lies above a model of one file is the caller's to name, links included.
        folder = (path, NO_FOLLOW) if stat.S_ISDIR(mode) else (path.parent, os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(folder[0], folder[1] | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise FormatError(f"no such file: '{path}'", hint="check the path of the model") from error
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {error.strerror}") from error
    try:
        yield Root(root, None if stat.S_ISDIR(mode) else path.name)
    finally:
        os.close(root)


def listed(root: Root) -> Listing:
    """All names of a model; nothing is left out, `.git` neither.

    Raises Refused with every symbolic link, pipe, socket and device (OS702), every name that is not UTF-8 or holds
    control characters or a backslash (OS703), and every pair of names that a file system may take for one (OS704).
    """
    if root.file is not None:
        if problem := bad_name(root.file):
            raise Refused([Reason("OS703", shown(root.file), problem)])
        return Listing((root.file,))
    files: list[str] = []
    folders: list[str] = []
    empty: list[str] = []
    reasons = []
    pending = [("", 0)]
    while pending:
        folder, depth = pending.pop()
        if depth > MAX_DEPTH or len(files) > MAX_FILES:
            raise Refused([Reason("OS705", folder, f"more than {MAX_DEPTH} folders deep, or {MAX_FILES} files")])
        found = _entries(root.descriptor, folder)
        if not found and folder:
            empty.append(folder)
        for name, mode in found:
            full = f"{folder}/{name}" if folder else name
            reasons += _unfit(full, mode)
            if stat.S_ISDIR(mode):
                folders.append(full)
                pending.append((full, depth + 1))
            else:
                files.append(full)
    reasons += collisions([*files, *folders])
    if reasons:
        raise Refused(sorted(reasons, key=lambda reason: reason.subject))
    return Listing(tuple(sorted(files, key=str.encode)), tuple(sorted(empty, key=str.encode)))


def open_regular(root: int, name: str) -> int:
    """A descriptor of a regular file under `root`; no part of `name` is followed if it is a link.

    Raises Refused (OS702) for anything else, FormatError when it cannot be read.
    """
    ((_, file),) = opened_files(root, [name])
    return file


def opened_files(root: int, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """As `open_regular` for many names, one after the other; folders are opened once for neighbours in them."""
    for folder, neighbours in itertools.groupby(names, lambda name: name.rpartition("/")[0]):
        with _inside(root, folder) as inner:
            for name in neighbours:
                yield name, _opened(inner, name)


def _opened(folder: int, name: str) -> int:
    try:
        file = os.open(name.rpartition("/")[2], NO_FOLLOW, dir_fd=folder)
    except OSError as error:
        raise _unreadable(name, error) from error
    if not stat.S_ISREG(mode := os.fstat(file).st_mode):
        os.close(file)
        raise Refused([Reason("OS702", shown(name), f"it is {SPECIAL.get(stat.S_IFMT(mode), 'no regular file')}")])
    return file


def bad_name(name: str) -> str | None:
    """What is wrong with the name of a file in a manifest, None when nothing is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not name or name.startswith("/") or "\\" in name:
        return "it is empty, begins with a slash or holds a backslash"
    if not (name.isascii() and name.isprintable()) and any(unicodedata.category(letter) == "Cc" for letter in name):
        return "it holds a control character"
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        return "it leads out of the folder, or round about"
    return None


def collisions(names: list[str]) -> list[Reason]:
    """Pairs of names that differ for us and are one for a file system that folds case or composes letters."""
    seen: dict[str, str] = {}
    reasons = []
    for name in names:
        if name.isascii() and name.islower():
            key = name
        else:
            # Composed again after folding: folding may leave letters apart.
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        if (other := seen.setdefault(key, name)) != name:
            reasons.append(Reason("OS704", shown(name), f"some file systems take it for '{shown(other)}'"))
    return reasons


def shown(name: str) -> str:
    """A name that may hold anything, as text that can be printed."""
    return name.encode(errors="backslashreplace").decode().encode("unicode_escape").decode() if bad_name(name) else name


@contextmanager
def _inside(root: int, folder: str) -> Iterator[int]:
    """The folder under `root`, opened one part after the other; what goes wrong inside is said of it, too."""
    inner = root
    try:
        for part in filter(None, folder.split("/")):
            opened = os.open(part, NO_FOLLOW | os.O_DIRECTORY, dir_fd=inner)
            if inner != root:
                os.close(inner)
            inner = opened
        yield inner
    except OSError as error:
        raise _unreadable(folder or ".", error) from error
    finally:
        if inner != root:
            os.close(inner)


def _entries(root: int, folder: str) -> list[tuple[str, int]]:
    with _inside(root, folder) as inner, os.scandir(inner) as entries:
        return [(entry.name, _mode(entry)) for entry in entries]


def _mode(entry: os.DirEntry[str]) -> int:
    # What the folder itself tells saves a call for each of many files.
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return entry.stat(follow_symlinks=False).st_mode


def _unfit(name: str, mode: int) -> list[Reason]:
    reasons = []
    if problem := bad_name(name):
        reasons.append(Reason("OS703", shown(name), problem))
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        reasons.append(Reason("OS702", shown(name), f"it is {SPECIAL.get(stat.S_IFMT(mode), 'no regular file')}"))
    return reasons


def _unreadable(name: str, error: OSError) -> Exception:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return Refused([Reason("OS702", shown(name), "a part of its path became a link or a file")])
    if error.errno == errno.ENOENT:
        return Refused([Reason("OS706", shown(name), "it went away while it was read")])
    if error.errno == errno.ENXIO:
        return Refused([Reason("OS702", shown(name), "it is a socket or a pipe")])
    return FormatError(f"cannot read '{shown(name)}': {error.strerror}", hint="check its permissions")
