"""Sorting more than memory holds: runs in unnamed files, merged as they are read."""

import heapq
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

RUN = 250_000
"""Entries that are sorted in memory at a time."""
MOST_RUNS = 128
"""Runs that are open at once; when there are more they are merged into one."""
_LENGTHS = struct.Struct(">HI")

Entry = tuple[bytes, bytes]
"""A key of at most 65,535 bytes and what belongs to it."""


class Sorted:
    """Entries in the order of their keys' bytes, then of what belongs to them; at most `RUN` of them in memory.

    The files have no names, so that whatever ends this process leaves none behind.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._runs: list[IO[bytes]] = []
        self._last: list[Entry] = []
        self.count = 0
        for entry in entries:
            self._last.append(entry)
            self.count += 1
            if len(self._last) == RUN:
                self._spill()
        self._last.sort()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        return heapq.merge(*map(_read, self._runs), self._last) if self._runs else iter(self._last)

    def close(self) -> None:
        """Give the files back."""
        for run in self._runs:
            run.close()

    def _spill(self) -> None:
        self._last.sort()
        self._runs.append(_written(self._last))
        self._last = []
        if len(self._runs) == MOST_RUNS:
            merged = _written(heapq.merge(*map(_read, self._runs)))
            self.close()
            self._runs = [merged]


def _written(entries: Iterable[Entry]) -> IO[bytes]:
    run = tempfile.TemporaryFile(buffering=2**20)  # noqa: SIM115 - closed by `close`
    for key, rest in entries:
        run.write(_LENGTHS.pack(len(key), len(rest)))
        run.write(key)
        run.write(rest)
    run.flush()
    return run


def _read(run: IO[bytes]) -> Iterator[Entry]:
    run.seek(0)
    while head := run.read(_LENGTHS.size):
        first, second = _LENGTHS.unpack(head)
        yield run.read(first), run.read(second)
