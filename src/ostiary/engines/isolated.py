"""Running one job in a child process, with its limits; every engine does this, wherever it runs."""

import multiprocessing
import signal
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from threading import Event, Lock
from typing import Any

from ostiary.engines import child
from ostiary.engines.job import Done, Job

POLL = 0.2
_starting = Lock()
"""The fork server is asked by one thread at a time."""


def context(*, warm: bool = True) -> ForkServerContext:
    """The fork server's context; a `warm` server has torch loaded, so that a child starts in milliseconds."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch", "ostiary.engines.child", "ostiary.defend"] if warm else [])
    return found


@contextmanager
def _no_main() -> Iterator[None]:
    """Without this a child would import the caller's main module, and with it, before the seal, what that imports."""
    own = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


def isolated(job: Job, stop: Event | None = None, *, warm: bool = True) -> Done:
    """Run `job` in a child process and wait for its end.

    A crash, a passed time limit or too much memory end the child alone and are told as such. Once
    `stop` is set the child is ended, and the job counts as crashed. A process that runs one job only
    is quicker when its fork server is not `warm`.
    """
    begun = time.monotonic()
    ctx = context(warm=warm)
    receive, send = ctx.Pipe(duplex=False)
    process = ctx.Process(target=child.main, args=(job, send), daemon=True)
    with _starting, _no_main():
        process.start()
    send.close()
    try:
        answer = _answer(receive, None if job.timeout is None else begun + job.timeout, stop)
        if answer is None:
            process.kill()
        process.join()
    finally:
        receive.close()
        process.kill()
    seconds = time.monotonic() - begun
    if answer is not None and answer:
        status, value, reason, peak = answer
        return Done(key=job.key, status=status, value=value, reason=reason, seconds=seconds, peak_bytes=peak)
    if answer is not None:
        return Done(key=job.key, status="crashed", reason=_how(process.exitcode), seconds=seconds)
    if stop is not None and stop.is_set():
        return Done(key=job.key, status="crashed", reason="stopped", seconds=seconds)
    return Done(key=job.key, status="timeout", reason=f"not done after {job.timeout:g} s", seconds=seconds)


def _answer(receive: Connection, limit: float | None, stop: Event | None) -> tuple[Any, ...] | None:
    """The child's answer; empty when it ended without one, None when it must not go on."""
    while not receive.poll(POLL):
        if (limit is not None and time.monotonic() > limit) or (stop is not None and stop.is_set()):
            return None
    try:
        answer: tuple[Any, ...] = receive.recv()
    except EOFError:
        return ()
    return answer


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        return f"the process was ended by {name}"
    return f"the process ended with exit code {exitcode} and no answer"
