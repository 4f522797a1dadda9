"""The seal between truth and defence.

Everything that knows the trigger, the target or the poisoned indices lives in the sealed modules
and in `DIR.truth/` folders. A process that runs a defence closes the seal: from then on an audit
hook refuses to import a sealed module and to open or list its code or a truth folder. The seal
cannot be opened again in that process. `SealedProcess` gives one to code that needs both
sides (the demo, the bench).

Limit: the hook sees what Python code opens, and child processes whose command names a truth folder.
A C or Rust extension that opens a file by itself (safetensors, Arrow, torch's mapped files) is not
seen, nor is a child that finds the folder on its own. Where the kernel can (`landlock`), folders
given to `close_seal`, and the code of the sealed modules, are out of reach for these too; elsewhere
only the fact remains that truth paths are never passed to a defence.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from ostiary.core.errors import SealBroken
from ostiary.core.landlock import hide

SEALED_MODULES = ("ostiary.attacks", "ostiary.bench", "ostiary.text.attacks", "ostiary.federated.attacks")
TRUTH_SUFFIX = ".truth"
IMPORT_HINT = "a defence and all that it loads must do without the attacks and the bench"
HINT = "only `ostiary evaluate --truth` may see it; give the poisoned set itself, or samples you trust"

R = TypeVar("R")

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# importlib.import_module raises no "import" event, but whatever imports must open the module's file.
_SEALED_FOLDERS = tuple(os.path.join(_PACKAGE, *name.split(".")[1:], "") for name in SEALED_MODULES)

_closed = False
_FILE_EVENTS = frozenset({"open", "os.listdir", "os.scandir", "shutil.copyfile", "os.rename", "os.link", "os.symlink"})
_PROCESS_EVENTS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"})


def _is_sealed(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in SEALED_MODULES)


def _sealed_part(path: object) -> str | None:
    """What a path would give away: "truth", "code", or nothing."""
    if path is None:  # os.listdir() and os.scandir() without a path mean the working directory
        path = os.curdir
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    real = os.path.realpath(os.fsdecode(path))
    if any(part.endswith(TRUTH_SUFFIX) for part in real.split(os.sep)):
        return "truth"
    return "code" if real.startswith(_SEALED_FOLDERS) else None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "import" and args and isinstance(args[0], str) and _is_sealed(args[0]):
        raise SealBroken(f"a defence process may not import '{args[0]}'", hint=IMPORT_HINT)
    # The environment, a dict, may name anything.
    if event in _PROCESS_EVENTS and TRUTH_SUFFIX in repr([arg for arg in args if not isinstance(arg, dict)]):
        raise SealBroken("a defence process may not start another one on sealed truth", hint=HINT)
    if event in _FILE_EVENTS:
        for arg in args[:2]:
            if part := _sealed_part(arg):
                raise SealBroken(f"a defence process may not open sealed {part}", hint=HINT)


def close_seal(hidden: Sequence[str | Path] = (), keep: Sequence[str | Path] = ()) -> None:
    """Close the seal of this process for good; the kernel keeps `hidden` paths from it, but for `keep` inside them.

    Where the kernel cannot (`landlock.available`), the hook alone holds. To be called while the
    process has one thread. Raises SealBroken when a sealed module is loaded already, since it can no
    longer be kept away.
    """
    global _closed  # noqa: PLW0603 - an audit hook cannot be removed, so this is per process
    loaded = sorted(name for name in sys.modules if _is_sealed(name))
    if loaded:
        raise SealBroken(f"cannot seal a process that has already imported {', '.join(loaded)}")
    if hidden:
        # Python lists a package again whenever its folder has changed, and finds nothing in it where it may not.
        hide([*hidden, *_SEALED_FOLDERS], keep, listed=[_PACKAGE])
    if not _closed:
        sys.addaudithook(_watch)
        _closed = True


def sealed() -> bool:
    """True when this process has closed its seal."""
    return _closed


class SealedProcess:
    """A child process with a closed seal that runs functions one at a time.

    The child starts fresh (spawn), so nothing that the parent knows is in it. Use as a context
    manager.
    """

    def __init__(self, threads: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start_sealed, initargs=(threads,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=exc[0] is None, cancel_futures=True)

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        """Call `function` in the sealed child; arguments and result travel by pickle between our own processes."""
        return self._pool.submit(function, *args, **kwargs)


def _start_sealed(threads: int | None) -> None:
    close_seal()
    end_with_parent()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def end_with_parent() -> None:
    """Let this child process end when its parent does, however that ends; else it would work or wait on for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
