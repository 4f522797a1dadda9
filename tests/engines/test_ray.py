"""What only the engine on Ray promises: workers may die, and strangers stay out."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from engine_case import PATIENCE, job, run, written

from ostiary.core.landlock import available
from ostiary.engines.ray import RayEngine

pytestmark = pytest.mark.usefixtures("ray_cluster")

STRANGER = """
import sys
from ostiary.core.errors import ConfigError
from ostiary.engines.ray import RayEngine
try:
    RayEngine(sys.argv[1])
except ConfigError as error:
    sys.exit(str(error))
"""


def test_a_killed_worker_is_replaced_and_its_job_runs_again(tmp_path: Path) -> None:
    lines, mark = tmp_path / "lines", tmp_path / "pid"
    with RayEngine() as engine:
        engine.submit(job("long", "outlive", mark=str(mark), file=str(lines)))
        engine.submit(job("other", "double", x=2))
        os.kill(int(written(mark)), signal.SIGKILL)
        done = {one.key: one for one in (engine.take(PATIENCE), engine.take(PATIENCE)) if one is not None}
    assert (done["long"].status, done["long"].value) == ("ok", "second time")
    assert done["other"].value == 4
    assert lines.read_text(encoding="utf-8") == "begun\nbegun\n"


def test_a_worker_that_always_dies_ends_its_job_alone(tmp_path: Path) -> None:
    with RayEngine(retries=0) as engine:
        done = run(engine, job("fatal", "outlive"), job("other", "double", x=2))
    assert done["fatal"].status == "crashed" and done["fatal"].reason
    assert done["other"].value == 4


def test_strangers_are_refused(ray_cluster: str) -> None:
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    plain |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "HOME": "/nowhere"}
    for extra in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        command = [sys.executable, "-c", STRANGER, ray_cluster]
        told = subprocess.run(command, env=plain | extra, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert told.returncode == 1, told.stderr
        assert f"no Ray cluster can be used at '{ray_cluster}'" in told.stderr and "InvalidAuthToken" in told.stderr


def test_the_token_is_this_user_s_alone_and_out_of_a_defence_s_reach(tmp_path: Path) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text(encoding="ascii")) == 64
    with RayEngine() as engine:
        done = run(
            engine,
            job("open", "size", file=str(token)),
            job("thief", "size", file=str(token), sealed=True, hidden=(str(tmp_path),)),
        )
    assert done["open"].value == 64
    if available():
        assert done["thief"].status == "failed" and "PermissionError" in done["thief"].reason
