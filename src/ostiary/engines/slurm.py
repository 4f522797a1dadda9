"""The engine of a Slurm cluster, through submitit: a Slurm job for every job, a child process in each."""

import math
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from ostiary.core.errors import ConfigError, MissingExtra, OutputError
from ostiary.engines.isolated import isolated
from ostiary.engines.job import Done, Job

POLL = 0.2
MARGIN_MINUTES = 5
"""What Slurm gives a job beyond its own time limit, for starting."""

MARGIN_GIB = 2.0
"""What Slurm gives a job beyond its own memory limit, which does not count mapped files and libraries."""

CLOSING = 30.0
"""Seconds that cancelled jobs get to end."""


class SlurmEngine:
    """Submits each job to Slurm, up to `slots` at once; `folder` must be seen by all nodes.

    Every engine makes itself a folder in `folder` that only this user can enter, since submitit keeps
    there, as pickles, what is sent and what comes back: one function of ours and a JSON text. Its logs
    lie there too. A job gets as many CPUs as it has threads, `gpus`, its memory and time limits and
    something more; without a time limit of its own it gets `hours`. `partition` and further options
    may also be set by sbatch's own environment variables (SBATCH_PARTITION). `cluster` "local" runs
    the jobs on this machine, without Slurm.

    A job is ended on leaving the engine; one whose engine was killed ends with Slurm's time limit, or by
    `scancel --name ostiary`. Raises MissingExtra without submitit, ConfigError where there is no Slurm.
    """

    def __init__(
        self,
        folder: str | Path = "ostiary-slurm",
        partition: str | None = None,
        slots: int = 16,
        *,
        gpus: int = 0,
        hours: float = 24.0,
        cluster: str = "slurm",
    ) -> None:
        self._submitit = _load()
        self.slots = slots
        self._partition, self._gpus, self._hours, self._cluster = partition, gpus, hours, cluster
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix="jobs-", dir=Path(folder).resolve())
        except OSError as error:
            raise OutputError(f"cannot write into '{folder}': {(error.strerror or str(error)).lower()}") from error
        self._running: dict[str, Any] = {}
        self._executor()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def submit(self, job: Job, /) -> None:
        """Take a job; its `needs` are met."""
        seconds = self._hours * 3600 if job.timeout is None else job.timeout
        executor = self._executor()
        executor.update_parameters(
            name="ostiary",
            timeout_min=math.ceil(seconds / 60) + MARGIN_MINUTES,
            cpus_per_task=job.threads,
            gpus_per_node=self._gpus or None,
            mem_gb=None if job.memory is None else job.memory / 2**30 + MARGIN_GIB,
            slurm_partition=self._partition,
        )
        self._running[job.key] = executor.submit(_run, job.to_json())

    def take(self, timeout: float | None = None) -> Done | None:
        """The next job that ended; None when none ends within `timeout` seconds, or none runs."""
        limit = None if timeout is None else time.monotonic() + timeout
        while self._running or limit is not None:
            for key, running in self._running.items():
                if running.done():
                    return self._done(key)
            if limit is not None and time.monotonic() > limit:
                return None
            time.sleep(POLL)
        return None

    def close(self) -> None:
        """End whatever still runs."""
        for running in self._running.values():
            running.cancel(check=False)
        limit = time.monotonic() + CLOSING
        while not all(running.done() for running in self._running.values()) and time.monotonic() < limit:
            time.sleep(POLL)
        self._running.clear()

    def _executor(self) -> Any:
        """A new one, as an executor keeps the limits of the job before."""
        try:
            return self._submitit.AutoExecutor(self._folder, cluster=self._cluster)
        except RuntimeError as error:
            raise ConfigError(f"no Slurm here: {error}", hint="use this engine where srun is found") from error

    def _done(self, key: str) -> Done:
        running = self._running.pop(key)
        try:
            return Done.from_json(running.result())
        except self._submitit.core.utils.FailedJobError as error:  # no fault of the job: its node lacks something
            return Done(key=key, status="failed", reason=str(error).strip().rpartition("\n")[2])
        except self._submitit.core.utils.UncompletedJobError as error:
            reason = f"{str(error).strip().partition(chr(10))[0]} (Slurm says {running.state})"
            return Done(key=key, status="crashed", reason=reason)


def _run(text: str) -> str:
    """What a Slurm job does: a job's JSON in, how it ended as JSON out."""
    return isolated(Job.from_json(text), warm=False).to_json()


def _load() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise MissingExtra("the engine 'slurm' needs submitit", hint="pip install 'ostiary[slurm]'") from error
    return submitit
