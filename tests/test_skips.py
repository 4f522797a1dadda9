"""The golden list of skips is kept, and a skip outside it fails a run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def lines() -> list[str]:
    text = (HERE / "skips.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("line", lines(), ids=lambda line: line.split()[0])
def test_every_line_names_tests_that_exist_and_a_reason(line: str) -> None:
    prefix, reason = line.split(maxsplit=1)
    file, _, name = prefix.partition("::")
    assert len(reason) > 10
    assert f"def {name}" in (HERE.parent / file).read_text(encoding="utf-8")


def test_an_unlisted_skip_fails_the_run(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("conftest.py", "kept.py"):
        shutil.copy(HERE / name, tests)
    (tests / "skips.txt").write_text("tests/test_one.py::test_listed  a reason\n")
    skip = "    pytest.skip('no data')\n"
    (tests / "test_one.py").write_text(f"import pytest\ndef test_listed():\n{skip}def test_other():\n{skip}")
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "not listed" in line]
    assert told == ["ERROR skipped, but not listed in tests/skips.txt: tests/test_one.py::test_other"]
