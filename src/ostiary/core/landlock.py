"""Hiding folders from this process by the kernel: Landlock, Linux 5.13 and later.

An audit hook sees what Python opens; the kernel also sees what a C or Rust extension, a child
process or a link opens. Landlock knows no "all but": so everything beside the path to a hidden
folder is allowed, and nothing on it. See https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_READ_FILE, _READ_DIR, _REFER = 1 << 2, 1 << 3, 1 << 13
_VERSION, _PATH_BENEATH, _NO_NEW_PRIVS = 1, 1, 38
_FIRST_WITH_REFER = 2


def available() -> bool:
    """True when this kernel can hide folders from a process that still may move files about."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(_libc().syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION) >= _FIRST_WITH_REFER)


def hide(folders: Iterable[str | Path], keep: Iterable[str | Path] = (), listed: Iterable[str | Path] = ()) -> bool:
    """Keep `folders` from this process, its later threads and its children; False where that is not possible.

    They can be read no more, but for what `keep` names inside them. Folders that do not exist yet
    cannot be hidden; folders on the way to hidden ones cannot be listed either, but for those under
    `listed`, where hidden folders show their names and nothing else. Raises OSError when the kernel
    refuses.
    """
    hidden = [path for path in map(os.path.realpath, folders) if os.path.exists(path)]
    if not hidden:
        return True
    if not available():
        return False
    libc, rights = _libc(), _READ_FILE | _READ_DIR | _REFER
    ruleset = _checked(libc.syscall(_CREATE, struct.pack("Q", rights), ctypes.c_size_t(8), 0))
    try:
        for path in (*_beside(hidden), *map(os.path.realpath, keep)):
            _allow(libc, ruleset, path, rights)
        for path in map(os.path.realpath, listed):
            _allow(libc, ruleset, path, _READ_DIR)
        _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _beside(hidden: list[str], root: str = "/") -> Iterator[str]:
    """The largest subtrees of `root` that hold nothing hidden."""
    for entry in os.scandir(root):
        path = entry.path
        if path in hidden or entry.is_symlink():
            continue  # what a link leads to counts where it lies
        if any(one.startswith(path + os.sep) for one in hidden):
            yield from _beside(hidden, path)
        else:
            yield path


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # gone by now, or not ours to open: then it stays hidden
    try:
        mine = rights if os.path.isdir(path) else _READ_FILE
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", mine, handle), 0)
    finally:
        os.close(handle)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
