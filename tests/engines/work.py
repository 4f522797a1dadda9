"""What the jobs of the engine tests call."""

import importlib
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ostiary.core.errors import DataError


def double(x: int) -> int:
    return 2 * x


def echo(value: Any) -> Any:
    return tuple(value)


def fail(kind: str) -> object:
    if kind == "ours":
        raise DataError("no such class", hint="name another")
    if kind == "object":
        return object()
    raise ValueError("a method's own mistake")


def kill(signum: int) -> None:
    os.kill(os.getpid(), signum)


def leave(code: int) -> None:
    os._exit(code)


def sleep(seconds: float, mark: str = "") -> str:
    if mark:
        Path(mark).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(seconds)
    return "awake"


def fill(gib: float) -> int:
    import torch

    return len(torch.ones(int(gib * 2**30), dtype=torch.uint8))


def append(file: str, word: str, seconds: float = 0.0) -> str:
    """Leaves a line, so that a test can count how often it ran."""
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(word + "\n")
    time.sleep(seconds)
    return word


def outlive(mark: str = "", file: str = "") -> str:
    """Names the process that runs the job, to be killed; without a mark kills it, each time."""
    runner = multiprocessing.parent_process()
    assert runner is not None and runner.pid is not None
    if not mark:
        os.kill(runner.pid, signal.SIGKILL)
        time.sleep(60)
    append(file, "begun")
    if Path(mark).exists():
        return "second time"
    Path(mark).write_text(str(runner.pid), encoding="utf-8")
    time.sleep(60)
    return "first time"


def where() -> dict[str, Any]:
    import torch

    from ostiary.core.seal import sealed

    return {"sealed": sealed(), "threads": torch.get_num_threads(), "bench": "ostiary.bench" in sys.modules}


def size(file: str) -> int:
    return len(Path(file).read_bytes())


def reach(module: str) -> None:
    __import__(module)


def read_natively(folder: str) -> dict[str, str]:
    """What a defence tries that would have the truth: Python, native readers, a child, a link, a copy, the parent."""
    import json
    import subprocess
    from collections.abc import Callable

    import pyarrow as pa
    import torch
    from safetensors import safe_open

    file = os.path.join(folder, "trigger.safetensors")
    link = os.path.join(os.path.dirname(folder), "link")
    ways: dict[str, Callable[[], Any]] = {
        "open": lambda: Path(file).read_bytes(),
        "list": lambda: os.listdir(folder),
        "safetensors": lambda: safe_open(file, framework="pt"),
        "arrow": lambda: pa.OSFile(file).read(),
        "torch": lambda: torch.from_file(file, size=8, dtype=torch.uint8),
        "child": lambda: subprocess.run(["/bin/cat", json.loads(f'"{file[:-1]}s"')], check=True, capture_output=True),
        "find": lambda: subprocess.run(
            ["/bin/sh", "-c", "cat " + folder[:-5] + "*/trigger*"], check=True, capture_output=True
        ),
        "link": lambda: (os.symlink(folder, link), Path(link, "trigger.safetensors").read_bytes()),
        "parent": lambda: Path(f"/proc/{os.getppid()}/mem").open("rb").close(),
    }
    told = {}
    for name, way in ways.items():
        try:
            way()
            told[name] = "got it"
        except Exception as error:  # noqa: BLE001 - every refusal counts
            told[name] = type(error).__name__
    return told


def tidy(folder: str) -> str:
    """Writes as every output is written: under a temporary name, then renamed."""
    from ostiary.core.files import write_text

    write_text(Path(folder) / "out.txt", "written")
    return (Path(folder) / "out.txt").read_text(encoding="utf-8")


def import_late() -> str:
    importlib.invalidate_caches()
    return importlib.import_module("ostiary.guard.strip").__name__
