"""One job in one process: limits, seal, the call, the answer. Nothing of the bench is imported here."""

import importlib
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from ostiary.core.errors import OstiaryError
from ostiary.core.memory import peak_rss
from ostiary.core.seal import close_seal, end_with_parent
from ostiary.engines.job import Job

NO_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")


def main(job: Job, answer: Connection) -> None:
    """Run `job` and send (status, value, reason, peak bytes) through `answer`."""
    # Ctrl-C goes to the whole group of processes; the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if job.sealed:
            close_seal(job.hidden, job.keep)  # first: it holds for threads that start later alone
        end_with_parent()
        value = _call(job)
        message: tuple[str, Any, str] = ("ok", value, "")
    except BaseException as error:  # noqa: BLE001 - whatever a method throws is the job's result
        hint = getattr(error, "hint", None)
        text = f"{error} ({hint})" if hint else str(error)
        if not isinstance(error, OstiaryError):
            text = f"{type(error).__name__}: {error}".strip()
        out = isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY)
        if out and job.memory is not None:
            text = f"more than {job.memory / 2**30:.3g} GiB of memory were asked for ({text})"
        message = ("memory" if out else "failed", None, text)
    answer.send((*message, peak_rss()))
    answer.close()


def _call(job: Job) -> Any:
    if job.memory is not None:
        # Private writable memory, which is what a job asks for; mapped files, shared by all, are not counted.
        resource.setrlimit(resource.RLIMIT_DATA, (job.memory, job.memory))
    # A child of a warm server has torch already; else torch reads this when the job imports it.
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(job.threads)
    module, _, name = job.call.partition(":")
    # Through JSON here too, so that an engine which sends text gives a job nothing else, and gets nothing else back.
    value = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(job.args)))
    return json.loads(json.dumps(value))
