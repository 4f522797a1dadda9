"""Run the command line in a fresh process, as its seal and its signals ask for."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ostiary

# Many calls in one process: starting torch is what costs. "fsize" caps the bytes of any file written, like a full disk.
DRIVER = """
import contextlib, io, json, resource, sys
from ostiary.cli.main import run
results = []
for call in json.load(sys.stdin):
    sys.argv = ["ostiary", *call["args"]]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if call["fsize"] is None else call["fsize"], hard))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(call["args"])
        except SystemExit as stop:
            code = stop.code
    results.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(results))
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a call gave."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The whole of stdout as JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def errors(self) -> list[str]:
        """The error lines."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


def environment(runs: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, on one thread."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OSTIARY_") and k not in ("NO_COLOR", "CI")}
    # A relative entry of the caller's path would mean another folder there.
    source = str(Path(ostiary.__file__).parents[1])
    return {**kept, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "OSTIARY_RUNS": str(runs), **(extra or {})}


def popen(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start one call of the command line in a process of its own, in which Ctrl-C works.

    A test run that was started in the background ignores SIGINT and would hand that on.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "ostiary", *args],
        cwd=cwd,
        env=environment(cwd / "runs", env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    )


def call(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """One call of the command line in a process of its own."""
    with popen(*args, cwd=cwd, env=env) as process:
        out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def batch(
    calls: Sequence[Sequence[str]],
    *,
    cwd: Path,
    fsize: Sequence[int | None] = (),
    env: Mapping[str, str] | None = None,
) -> list[Result]:
    """Several calls, one after the other, in one fresh process."""
    limits = [*fsize, *[None] * (len(calls) - len(fsize))]
    payload = [{"args": list(args), "fsize": limit} for args, limit in zip(calls, limits, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=cwd,
        env=environment(cwd / "runs", env),
        input=json.dumps(payload),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return [Result(**item) for item in json.loads(done.stdout)]


def program(folder: Path) -> str:
    """A PATH on which `ostiary` is this one."""
    folder.mkdir(exist_ok=True)
    (folder / "ostiary").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ostiary "$@"\n')
    (folder / "ostiary").chmod(0o755)
    return os.pathsep.join((str(folder), str(Path(sys.executable).parent), os.environ["PATH"]))


def files(folder: Path) -> set[str]:
    """Every file and folder below `folder`, hidden ones too, but for the kept runs."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.startswith("runs")}
