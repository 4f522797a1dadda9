"""A SuperLink and two SuperNodes on loopback run the example; whatever happens, nothing of it is left running."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"
PATIENCE = 240.0
"""Seconds for all of it: each of a client's answers starts a process that imports torch."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Deployment:
    """Programs that share a home of their own, by which they and what they start can be found."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")} | {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        name = f"{len(self.started)}-{command[0]}.log"
        with (self.home / name).open("wb") as log:
            made = subprocess.Popen(
                [str(part) for part in command],
                env=self.env,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(made)
        return made

    def logs(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.home.glob("*.log")))

    def running(self) -> list[int]:
        """Every process that has this home, ours or not, among those that can be looked at."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"FLWR_HOME={self.home}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def stop(self) -> None:
        """Ask all to end, the last one first; after some seconds end them."""
        for kind, seconds in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
            for process in self.running():
                with suppress(ProcessLookupError):
                    os.kill(process, kind)
            until(lambda: not self._alive(), seconds)
        for made in self.started:
            made.wait(5)

    def _alive(self) -> list[int]:
        for made in self.started:
            made.poll()
        return self.running()


def until(done: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    try:
        yield made
    finally:
        made.stop()
        assert made.running() == []


def deploy(deployment: Deployment, app: Path) -> subprocess.Popen[bytes]:
    """SuperLink, SuperNodes and the run of an app; gives the process that follows the run's log."""
    link = free_port()
    (deployment.home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    deployment.start("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", link)
    assert until(lambda: listens(link), PATIENCE), deployment.logs()
    for part in range(2):
        config = f"partition-id={part} num-partitions=2"
        address = ("--insecure", "--superlink", f"127.0.0.1:{link}", "--host", "127.0.0.1", "--port", free_port())
        deployment.start("flower-supernode", *address, "--node-config", config)
    return deployment.start("flwr", "run", app, "here", "--run-config", "num-server-rounds=1", "--stream")


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_example_runs_deployed_behind_the_guard_and_nothing_is_left(deployment: Deployment) -> None:
    """Superlink, two supernodes, `flwr run`: no network but loopback, nothing installed, telemetry off."""
    app = deployment.home / "app"
    shutil.copytree(EXAMPLE, app, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    run = deploy(deployment, app)
    taken = "round 1: 2 of 2 clients taken"
    assert until(lambda: taken in deployment.logs() or run.poll() not in (None, 0), PATIENCE), deployment.logs()
    assert taken in deployment.logs(), deployment.logs()
    assert len(deployment.running()) >= 3, "the three programs serve on after a run"


def test_everything_is_stopped_where_the_run_fails(tmp_path: Path) -> None:
    """The folder holds no app: `flwr run` fails, and what was started before it is stopped all the same."""
    deployment = Deployment(tmp_path)
    try:
        run = deploy(deployment, tmp_path / "nothing")
        assert until(lambda: run.poll() is not None, PATIENCE) and run.returncode != 0
        assert deployment.running() != []
    finally:
        deployment.stop()
    assert deployment.running() == []
