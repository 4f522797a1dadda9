"""The package is quick to import, its help is quick to print, and its public names are pinned."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import ostiary

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "Caution",
    "Finding",
    "MethodResult",
    "Rate",
    "admit",
    "Record",
    "fit_guard",
    "harden_training",
    "load",
    "repair_model",
    "scan_model",
    "screen_data",
}
HEAVY = ("torch", "numpy", "scipy", "sklearn", "pyarrow", "pydantic", "PIL", "jinja2", "rich")
HELP_SECONDS = 0.3


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=True)


def imported(*args: str) -> set[str]:
    """The top-level packages that a Python process imports."""
    lines = python("-X", "importtime", *args).stderr.splitlines()
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}


def best_of_5(*args: str) -> float:
    """Processor seconds of the cheapest of five processes; on an idle machine, what one waits for."""
    seconds = []
    for _ in range(5):
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*args)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime)
    return min(seconds)


@pytest.mark.parametrize("args", [("-c", "import ostiary"), ("-m", "ostiary", "--help"), ("-m", "ostiary", "-V")])
def test_nothing_heavy_is_imported(args: tuple[str, ...]) -> None:
    names = imported(*args)
    assert "ostiary" in names
    assert names.isdisjoint(HEAVY), sorted(names.intersection(HEAVY))


def test_verifying_needs_no_torch() -> None:
    modules = ("verify", "sign", "decision", "trust", "oms", "pickles")
    names = imported("-c", "; ".join(f"import ostiary.provenance.{name}" for name in modules))
    assert "securesystemslib" in names and "torch" not in names


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in imported("-c", "from ostiary import Record")


def test_help_is_quick() -> None:
    bare, ours = best_of_5("-c", "pass"), best_of_5("-m", "ostiary", "--help")
    assert ours < HELP_SECONDS, f"--help takes {ours:.3f} s, of which Python itself takes {bare:.3f} s"


def test_public_names_are_pinned() -> None:
    assert set(ostiary.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(ostiary, name).__name__.endswith(("load_model", name))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        ostiary.Nothing  # noqa: B018 - the access is the test


SEALED_SCRIPTS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "SealedProcess(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SEALED_SCRIPTS)
def test_a_script_that_seals_processes_brings_no_truth_into_them(script: str) -> None:
    """A spawned process imports the script anew before it closes its seal."""
    code = f"import benchmarks.{script}; from ostiary.core.seal import close_seal; close_seal()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
