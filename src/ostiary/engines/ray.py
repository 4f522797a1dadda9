"""The engine of a Ray cluster: a task for every job, a child process for every task."""

import atexit
import logging
import math
import os
import secrets
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

from ostiary.core.errors import ConfigError, MissingExtra
from ostiary.engines.isolated import isolated
from ostiary.engines.job import Done, Job

STORE_BYTES = 100 * 2**20
"""Room for objects on a cluster of our own; jobs and what they give are small texts."""

CLOSING = 10.0
"""Seconds that cancelled jobs get to end."""


class RayEngine:
    """Runs jobs as Ray tasks: on the cluster at `address`, or on one that it starts on this machine.

    `address` is `auto`, `HOST:PORT`, `ray://HOST:PORT` or `local`; without one the environment's
    RAY_ADDRESS counts, else `local`. A cluster that this process has joined already is used as it is
    and left running. Every node must have this version of ostiary and see the same files.

    Each job asks for `cpus` and `gpus`; up to `slots` are handed over at once (default: as many as
    fit). A task runs its job in a child process, as every engine does, so no crash of a job ends a
    worker, and no worker is ever sealed. When a worker itself dies, with its node or by a signal, Ray
    runs the job again, up to `retries` times.

    Whoever reaches a cluster runs code on it, so one that is started here demands a token, which lies
    in a file that only this user can read. A cluster that is joined decides by itself: set
    RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as its nodes do. Raises MissingExtra without ray, ConfigError
    when the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        slots: int | None = None,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        retries: int = 3,
    ) -> None:
        asked = address or os.environ.get("RAY_ADDRESS") or "local"
        if asked == "local":
            _demand_token()
        self._ray = ray = _load()
        self._owner = not ray.is_initialized()
        if self._owner:
            _join(ray, asked, math.ceil((slots or os.cpu_count() or 1) * cpus))
        self.address: str = ray.get_runtime_context().gcs_address
        self.slots = slots or _fitting(ray.cluster_resources(), cpus, gpus)
        self._task = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=retries)
        self._running: dict[Any, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def submit(self, job: Job, /) -> None:
        """Take a job; its `needs` are met."""
        self._running[self._task.remote(job.to_json())] = job.key

    def take(self, timeout: float | None = None) -> Done | None:
        """The next job that ended; None when none ends within `timeout` seconds, or none runs."""
        if not self._running:
            time.sleep(timeout or 0.0)
            return None
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        return self._done(ended[0]) if ended else None

    def close(self) -> None:
        """End whatever still runs."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=CLOSING)
        self._running.clear()
        if self._owner:
            self._ray.shutdown()
            self._owner = False

    def _done(self, task: Any) -> Done:
        key = self._running.pop(task)
        errors = self._ray.exceptions
        try:
            return Done.from_json(self._ray.get(task))
        except errors.OutOfMemoryError as error:
            return Done(key=key, status="memory", reason=_first_line(error))
        except errors.RayTaskError as error:  # no fault of the job: its node lacks what ostiary needs
            return Done(key=key, status="failed", reason=str(error).strip().rpartition("\n")[2])
        except errors.RayError as error:
            return Done(key=key, status="crashed", reason=_first_line(error))


def _run(text: str) -> str:
    """What a task does: a job's JSON in, how it ended as JSON out."""
    job = Job.from_json(text)
    if job.hidden:
        # Whoever holds the token can start tasks, which no seal binds.
        token = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
        job = replace(job, hidden=(*job.hidden, str(token)))
    return isolated(job).to_json()


def _load() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("the engine 'ray' needs ray", hint="pip install 'ostiary[cluster]'") from error
    return ray


def _demand_token() -> None:
    """Let a cluster that this process is about to start refuse whoever lacks its token."""
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        return
    if not os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", _token_file())
    if loaded is None:  # Ray reads the mode once, on import; where it is unset, a new cluster demands tokens anyway
        os.environ["RAY_AUTH_MODE"] = "token"


@cache
def _token_file() -> str:
    """A file that only this user can read, with a secret; one a process, as Ray keeps the first that it reads."""
    handle, path = tempfile.mkstemp(prefix="ostiary-ray-", suffix=".token")
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))
    atexit.register(Path(path).unlink, missing_ok=True)
    return path


def _join(ray: Any, address: str, cpus: int) -> None:
    own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(own if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"no Ray cluster can be used at '{address}': {_first_line(cause)}",
            hint="check the address, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH are those of its nodes",
        ) from error


def _fitting(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """How many jobs the cluster has room for at once; at least one, which waits for a node that has it."""
    rooms = [resources.get(name, 0.0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return max(1, int(min(rooms, default=1)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
