"""The seal, tried from the inside: every attempt runs in a process of its own."""

import importlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ostiary.core.errors import SealBroken
from ostiary.core.seal import SealedProcess, sealed

HEAD = """
import os, shutil, sys
from pathlib import Path
from ostiary.core.errors import SealBroken
from ostiary.core.seal import close_seal, sealed
def held(label, attempt):
    try:
        attempt()
    except SealBroken:
        print("held", label)
    except BaseException as error:
        print("other", label, type(error).__name__)
    else:
        print("broken", label)
"""


def inside(body: str, where: Path) -> list[str]:
    """What a fresh interpreter prints; a non-zero exit fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(body)],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sealed")
    truth = root / "set.parquet.truth"
    truth.mkdir()
    (truth / "truth.json").write_text("{}")
    (root / "link").symlink_to(truth)
    (root / "file-link").symlink_to(truth / "truth.json")
    (root / "plain").mkdir()
    (root / "plain" / "a.txt").write_text("a")
    return root


def test_truth_and_sealed_modules_are_out_of_reach(place: Path) -> None:
    lines = inside(
        """
        truth = Path("set.parquet.truth")
        assert truth.joinpath("truth.json").read_text() == "{}"  # open before the seal is closed
        close_seal(); close_seal()
        assert sealed()
        held("import", lambda: __import__("ostiary.attacks"))
        held("submodule", lambda: __import__("ostiary.attacks.truth"))
        held("bench", lambda: __import__("ostiary.bench"))
        held("text", lambda: __import__("ostiary.text.attacks"))
        import importlib, importlib.util, ostiary.core.catalog as catalog
        home = Path(catalog.__file__).parents[1] / "attacks"
        held("import_module", lambda: importlib.import_module("ostiary.attacks"))
        held("catalog", lambda: catalog.make("attack", "badnets"))
        spec = importlib.util.spec_from_file_location("other_name", home / "truth.py")
        held("other name", lambda: spec.loader.exec_module(importlib.util.module_from_spec(spec)))
        held("source", lambda: (home / "badnets.py").read_text())
        held("open", lambda: open("set.parquet.truth/truth.json"))
        held("bytes", lambda: open(b"set.parquet.truth/truth.json", "rb"))
        held("os.open", lambda: os.open("set.parquet.truth", os.O_RDONLY))
        held("read_text", lambda: (truth / "truth.json").read_text())
        held("absolute", lambda: (truth / "truth.json").resolve().read_bytes())
        held("listdir", lambda: os.listdir(truth))
        held("scandir", lambda: list(os.scandir(truth)))
        held("iterdir", lambda: list(truth.iterdir()))
        held("link", lambda: os.listdir("link"))
        held("in link", lambda: open("link/truth.json"))
        held("file link", lambda: open("file-link"))
        held("copyfile", lambda: shutil.copyfile("set.parquet.truth/truth.json", "plain/b"))
        held("copytree", lambda: shutil.copytree("set.parquet.truth", "plain/tree"))
        held("rename", lambda: os.rename("set.parquet.truth", "plain/mine"))
        held("replace", lambda: os.replace("set.parquet.truth", "plain/mine"))
        held("hard link", lambda: os.link("set.parquet.truth/truth.json", "plain/hard"))
        held("new link", lambda: os.symlink("set.parquet.truth", "plain/soft"))
        held("write", lambda: open("set.parquet.truth/new", "w"))
        import subprocess
        held("child", lambda: subprocess.run(["cat", "set.parquet.truth/truth.json"]))
        held("shell", lambda: os.system("cat set.parquet.truth/truth.json"))
        held("child within", lambda: subprocess.run(["cat", "truth.json"], cwd="set.parquet.truth"))
        os.chdir("set.parquet.truth")
        held("from within", lambda: open("truth.json"))
        held("within listdir", lambda: os.listdir())
        """,
        place,
    )
    assert [line for line in lines if not line.startswith("held ")] == []
    assert len(lines) == 31
    assert sorted(path.name for path in (place / "plain").iterdir()) == ["a.txt"]


def test_everything_else_works_as_before(place: Path) -> None:
    lines = inside(
        """
        close_seal()
        held("open", lambda: open("plain/a.txt").close())
        held("listdir", lambda: os.listdir("plain"))
        held("listdir here", lambda: os.listdir())
        held("scan", lambda: __import__("ostiary.scan.neural_cleanse"))
        held("screen", lambda: __import__("ostiary.screen.spectral_signatures"))
        held("repair", lambda: __import__("ostiary.repair.flow"))
        held("guard", lambda: __import__("ostiary.guard.flow"))
        held("harden", lambda: __import__("ostiary.harden.flow"))
        held("api", lambda: __import__("ostiary.api"))
        held("report", lambda: __import__("ostiary.report.render"))
        held("truth in a name", lambda: open("my.truth.txt", "w").close() or os.remove("my.truth.txt"))
        """,
        place,
    )
    assert [line.split()[0] for line in lines] == ["broken"] * 11, "the seal held back what it must not"


def test_the_seal_cannot_be_closed_too_late(place: Path) -> None:
    lines = inside(
        """
        import ostiary.attacks
        held("late", close_seal)
        assert not sealed()
        """,
        place,
    )
    assert lines == ["held late"]


def test_a_sealed_process_runs_functions(place: Path) -> None:
    assert not sealed()
    with SealedProcess(threads=1) as process:
        assert process.submit(sealed).result() is True
        assert process.submit(os.path.join, "a", "b").result() == "a/b"
        assert process.submit(dict, a=1).result() == {"a": 1}
        pids = [process.submit(os.getpid).result() for _ in range(2)]
        assert pids[0] == pids[1] != os.getpid()
        with pytest.raises(SealBroken, match="open sealed truth"):
            process.submit(os.listdir, str(place / "link")).result()
        with pytest.raises(SealBroken, match="may not open sealed code"):
            process.submit(importlib.import_module, "ostiary.attacks").result()
        assert process.submit(os.listdir, str(place / "plain")).result() == ["a.txt"], (
            "one refusal does not end the process"
        )
    assert not sealed() and os.listdir(place / "link") == ["truth.json"]


def test_a_sealed_process_does_not_outlive_its_killed_parent(place: Path) -> None:
    body = """
import os, time
from ostiary.core.seal import SealedProcess
if __name__ == "__main__":
    with SealedProcess() as sealed:
        print(sealed.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""
    script = place / "parent.py"
    script.write_text(body)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Not so when it is gone, or a zombie that nobody has collected yet."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return True
