"""Progress of commands that read a model's bytes."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.cli.common import Call
from ostiary.cli.progress import Progress, wants_bar

SHOWN = 200 * 2**20
"""Reading fewer bytes than these takes no time worth a bar."""


@contextmanager
def reading(call: Call, path: str) -> Iterator[Callable[[int], None]]:
    """What counts bytes of `path` as they are read, from any thread, shown for as long as the block runs."""
    total = _size(Path(path))
    bar = wants_bar(call["no_progress"], bool(os.environ.get("CI")))
    lock, done = threading.Lock(), 0
    with Progress(quiet=call["quiet"] or total < SHOWN, bar=bar, times=call["verbose"]) as progress:

        def count(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                progress(done, max(total, done), "reading")

        yield count


def _size(path: Path) -> int:
    """Bytes under a path, as far as it can be read; an estimate for progress alone."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    found = 0
    for folder, _, names in os.walk(path):
        found += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return found
