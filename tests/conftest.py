"""One thread, the same arithmetic on every machine, own run folders, and no skip that nobody agreed to."""

import os
from collections.abc import Iterator
from pathlib import Path

import kept
import pytest
import torch

# Networks that are trained in tests differ with the instructions of a machine as much as with the seed. torch looks at
# these when it first computes; numpy has looked at its own by now, which is why the Makefile sets them as well.
os.environ |= {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
}
torch.set_num_threads(1)

LONGEST = ("conformance", "cli", "bench", "contract", "engines")
"""Folders whose files take longest; they go first, so that no process is left alone with one of them at the end."""

ALLOWED = Path(__file__).with_name("skips.txt")


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the caller's environment but OSTIARY_DATA reaches a test or a session's fixture."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OSTIARY_") and name != "OSTIARY_DATA"]:
            patch.delenv(name)
        patch.setenv("OSTIARY_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("OSTIARY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_by_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is trained once in a run lies where all its processes find it."""
    own = tmp_path_factory.getbasetemp()
    kept.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kept"
    kept.folder.mkdir(exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def _work_is_importable() -> Iterator[None]:
    """Child processes of the engines import the functions of `engines/work.py` by name."""
    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(__file__).parent / "engines")
        patch.syspath_prepend(here)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")])))
        yield


@pytest.fixture(autouse=True)
def _own_runs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a run folder of its own."""
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of public sets and published models that OSTIARY_DATA names; skips without one."""
    folder = os.environ.get("OSTIARY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("OSTIARY_DATA names no folder of public sets and published models")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; else in order."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


def allowed_prefixes() -> tuple[str, ...]:
    """The node id prefixes of skips.txt: the first word of each line that is no comment."""
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return tuple(line.split()[0] for line in lines if line.strip() and not line.startswith("#"))


def _unlisted(reports: dict[str, list[pytest.TestReport | pytest.CollectReport]]) -> list[str]:
    skipped = {report.nodeid for report in reports.get("skipped", [])}
    return sorted(nodeid for nodeid in skipped if not nodeid.startswith(allowed_prefixes()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which a test was skipped that skips.txt does not list."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == 0 and terminal is not None and _unlisted(terminal.stats):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests whose skip is not listed."""
    for nodeid in _unlisted(terminalreporter.stats):
        terminalreporter.write_line(f"ERROR skipped, but not listed in tests/skips.txt: {nodeid}", red=True)
