"""What a child process gives up before it reads a file of a stranger: network, other files, other processes, memory.

Three nets under one another: an audit hook sees what Python does, resource limits and a network namespace of its own
hold for native code too, and Landlock keeps the files of the user out of reach where the kernel has it.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from ostiary.core.landlock import hide

_NEW_USER, _NEW_NET, _DEATH_SIGNAL = 0x10000000, 0x40000000, 1
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "pty.",
    "shutil.",
    "ftplib.",
    "urllib.",
    "webbrowser.",
    "ctypes.dlopen",
)
_SYSTEM = ("/proc", "/sys", "/dev")  # torch's native code asks them what the processor can; Python code need not
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Confined(PermissionError):
    """What a confined process tried is not allowed."""


def environment() -> dict[str, str]:
    """That of a fresh interpreter that runs a module of ours, with nothing else of this process."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(os.path.isabs, sys.path)])
    return {"PYTHONPATH": path, "PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def leave_network() -> bool:
    """Move this process, which must have one thread, to a network without interfaces; False where that is refused.

    It ends when its parent does. To be called before any module that starts threads is imported.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
    return bool(libc.unshare(_NEW_USER | _NEW_NET) == 0)


def hide_files() -> bool:
    """Keep all files but those of Python and of the system's libraries away; False where the kernel cannot."""
    top = [entry.path for entry in os.scandir("/") if entry.is_dir() and not entry.is_symlink()]
    return hide(top, keep=_code())


def limit(memory: int, written: int, seconds: int) -> None:
    """Bound private memory and written bytes, processor seconds and open files; no core dump."""
    for what, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


def watch(handle: int) -> None:
    """From now on Python code of this process may open `handle` and its own modules to read, and nothing else.

    Opening other files, writing by name, sockets and other processes raise Confined.
    """
    code = tuple(place + os.sep for place in _code() if place not in _SYSTEM)
    own = f"/proc/self/fd/{handle}"

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise Confined(f"{event} is not allowed here")
        if event == "open" and not _may_open(args, own, code):
            raise Confined(f"opening {str(args[0])[:200]!r} is not allowed here")

    sys.addaudithook(hook)


def _may_open(args: tuple[Any, ...], own: str, code: tuple[str, ...]) -> bool:
    path, mode, flags = args
    if isinstance(path, int):
        return True  # open already
    writes = any(letter in str(mode or "r") for letter in "wax+") or (isinstance(flags, int) and flags & _WRITES)
    name = os.fsdecode(path)
    return not writes and (name == own or os.path.realpath(name).startswith(code))


def _code() -> list[str]:
    """Where Python, its packages, this package and the libraries of the system lie."""
    ours = str(Path(__file__).resolve().parents[2])
    places = {sys.prefix, sys.base_prefix, ours, "/usr", "/lib", "/lib64", "/etc/ld.so.cache", *_SYSTEM}
    return sorted({os.path.realpath(place) for place in places})
