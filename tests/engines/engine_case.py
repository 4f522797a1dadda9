"""The engines of the tests, and short ways to write jobs."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ostiary.engines import Done, Engine, Job, schedule
from ostiary.engines.local import LocalEngine


def local(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    return LocalEngine(2)


def ray(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    """An engine on the one cluster of the test session."""
    request.getfixturevalue("ray_cluster")
    from ostiary.engines.ray import RayEngine

    return RayEngine()


def slurm(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    """An engine that submits to this machine, as there is no Slurm.

    There submitit ends a job by an interrupt, which processes ignore that come from a shell's background.
    """
    pytest.importorskip("submitit")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ostiary.engines.slurm import SlurmEngine

    folder = request.getfixturevalue("tmp_path_factory").mktemp("slurm")
    return SlurmEngine(folder, slots=2, cluster="local")


MAKERS: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Any]]] = {
    "local": local,
    "ray": ray,
    "slurm": slurm,
}


def job(key: str, call: str, /, *, needs: tuple[str, ...] = (), **args: Any) -> Job:
    extra = {name: args.pop(name) for name in ("timeout", "memory", "sealed", "hidden", "threads") if name in args}
    return Job(key=key, call=f"work:{call}", args=args, needs=needs, **extra)


def run(engine: Engine, *jobs: Job) -> dict[str, Done]:
    return {done.key: done for done in schedule(engine, jobs)}


PATIENCE = 300.0
"""Seconds after which a job is given up; a busy machine takes a minute and more to start what jobs run in."""


def written(file: Path) -> str:
    """What a job writes into `file`, once it did."""
    deadline = time.monotonic() + PATIENCE
    while not (file.exists() and (text := file.read_text(encoding="utf-8"))):
        assert time.monotonic() < deadline, "the job did not start"
        time.sleep(0.05)
    return text


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
