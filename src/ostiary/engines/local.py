"""The engine of one machine: a child process for every job."""

import os
import queue
import threading
from typing import Self

from ostiary.engines.isolated import isolated
from ostiary.engines.job import Done, Job


class LocalEngine:
    """Runs up to `slots` jobs at once on this machine (default: one per core).

    Every job has a process of its own, forked from a server that has torch loaded: a crash ends one
    job and never the sweep, which a pool of long-lived workers cannot promise.
    """

    def __init__(self, slots: int | None = None) -> None:
        self.slots = slots or _cores()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.slots)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def submit(self, job: Job, /) -> None:
        """Take a job; its `needs` are met."""
        self._waiting.put(job)

    def take(self, timeout: float | None = None) -> Done | None:
        """The next job that ended; None when none ends within `timeout` seconds."""
        try:
            return self._done.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End whatever still runs."""
        self._stop.set()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._stop.is_set():
            self._done.put(isolated(job, self._stop))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
