"""Checkpoints rewritten as safetensors: bit by bit the same, by a child that can do no more, whole or not at all."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import ostiary
from ostiary.bench.hostile import hostile_files
from ostiary.bench.hostile_benign import _KINDS
from ostiary.core.errors import FormatError, OutputError
from ostiary.core.files import sha256_file
from ostiary.core.landlock import available
from ostiary.provenance import convert as module
from ostiary.provenance.convert import convert
from ostiary.provenance.refusal import Refused
from ostiary.provenance.safetensors_header import read_header
from ostiary.provenance.tensors import DTYPES

W = torch.arange(12.0).reshape(3, 4)
ARRAY = np.arange(6, dtype=">i4").reshape(2, 3)
STATE: dict[str, Any] = {
    **{f"type {kind}": W.to(kind) for kind in _KINDS},
    "tied": W,
    "tied too": W,
    "row": W[1],
    "turned": W.t(),
    "every 2nd": W[:, ::2],
    "empty": W[:0],
    "number": W[1, 1].clone(),
    "parameter": torch.nn.Parameter(W.clone()),
    "NaN": W / 0,
    "array": ARRAY,
}
NEWER = [f"type {kind}" for kind in _KINDS if "uint16" in str(kind) or "float8" in str(kind)]

TYPES = {kind: name for name, kind in DTYPES.items()}


@pytest.fixture(scope="module", params=["zip", "old"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A checkpoint in one of torch's two layouts, what it was converted to, and what `convert` said."""
    folder = tmp_path_factory.mktemp("convert")
    zipped = request.param == "zip"
    # torch cannot read the number types that came later back from its old layout.
    content = {"state_dict": STATE, "epoch": 3} if zipped else {k: v for k, v in STATE.items() if k not in NEWER}
    torch.save(content, folder / "m.pt", _use_new_zipfile_serialization=zipped)
    return folder / "m.pt", folder / "m.safetensors", convert(folder / "m.pt", folder / "m.safetensors")


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_tensors_are_bit_by_bit_the_same(pair: tuple[Path, Path, Any]) -> None:
    source, out, made = pair
    with safe_open(out, framework="pt") as file:
        left = () if source.read_bytes().startswith(b"PK") else NEWER
        assert set(file.keys()) == set(STATE) - set(left) and made.tensors == len(STATE) - len(left)
        for name in file.keys():  # noqa: SIM118 - it is no dict
            want = STATE[name]
            wanted = torch.from_numpy(want.astype("i4")) if isinstance(want, np.ndarray) else want
            found = file.get_tensor(name)
            assert (found.dtype, found.shape, bits(found)) == (wanted.dtype, wanted.shape, bits(wanted)), name
        assert file.metadata()["source_sha256"] == made.source_sha256 == sha256_file(source)
        assert file.metadata()["format"] == "pt"
    assert made.under == (() if left else ("state_dict",))
    assert read_header(out.read_bytes()).tensors["tied"].begin % 4 == 0
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["payload-canary.pt", "canary-open.pkl", "gzip.joblib", "old-payload.pth"])
def test_what_is_refused_is_not_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("the child must not be asked")

    monkeypatch.setattr(module, "_in_child", never)
    one = next(one for one in hostile_files(tmp_path / "canary") if one.name == name)
    (tmp_path / name).write_bytes(one.data)
    with pytest.raises(Refused) as caught:
        convert(tmp_path / name, tmp_path / "new.safetensors")
    assert one.code in {reason.code for reason in caught.value.reasons} and caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_what_the_child_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"epoch": 3}, tmp_path / "m.pt")
    with pytest.raises(Refused, match=r"OS127 m.pt: 'the file' holds no state dict: found the keys 'epoch'"):
        convert(tmp_path / "m.pt", tmp_path / "new.safetensors")
    monkeypatch.setattr(module, "SECONDS", 0)
    with pytest.raises(Refused, match=r"OS127 m.pt: it took longer than 0 seconds"):
        convert(tmp_path / "m.pt", tmp_path / "new.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt"]


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [
        (-9, "", "", "was stopped by signal 9"),
        (1, "", "Traceback\nMemoryError", "ended with 1 MemoryError"),
        (0, "{", "", "ended with 0"),
        (0, '{"tensors": 1}', "", "ended with 0"),
        (0, '{"error": "kit"}', "", "kit"),
    ],
)
def test_a_child_that_does_not_end_well(code: int, out: str, err: str, words: str) -> None:
    done = subprocess.CompletedProcess([], code, out, err)
    with pytest.raises(Refused, match=words):
        module._answer(done, "m.pt")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    np.save(tmp_path / "a.npy", np.ones(2))
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[str, str, type[Exception], str]] = [
        ("a.npy", "new", FormatError, "no torch checkpoint but npy"),
        ("a.npy", "there", OutputError, "exists already"),
        ("nowhere.pt", "new", FormatError, "cannot read"),
        ("pipe", "new", FormatError, "no regular file"),
    ]
    for source, out, error, words in cases:
        with pytest.raises(error, match=words):
            convert(tmp_path / source, tmp_path / out)
    assert (tmp_path / "there").read_text() == "kept" and not (tmp_path / "new").exists()


TRIES = """
import ctypes, json, os, socket, subprocess, sys
from ostiary.provenance import confine
secret, new, handle = sys.argv[1], sys.argv[2], os.open(sys.argv[1], os.O_RDONLY)
said = {"left network": confine.leave_network(), "hid files": confine.hide_files()}
libc = ctypes.CDLL(None)
said["native open"] = libc.open(secret.encode(), 0) >= 0
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[3])), 2).close()
    said["connects"] = True
except OSError:
    said["connects"] = False
confine.limit(1 << 30, 1 << 20, 60)
confine.watch(handle)
acts = {
    "open": lambda: open(secret), "write": lambda: open(new, "w"), "os.open": lambda: os.open(new, os.O_CREAT),
    "append to own": lambda: open(confine.__file__, "a"), "socket": socket.socket, "system": lambda: os.system("true"),
    "run": lambda: subprocess.run(["true"]), "fork": os.fork, "exec": lambda: os.execv("/bin/true", ["true"]),
    "remove": lambda: os.remove(secret), "rename": lambda: os.rename(secret, new),
    "dlopen": lambda: ctypes.CDLL("libm.so.6"), "proc": lambda: open("/proc/self/environ"),
    "link": lambda: os.symlink(secret, new), "memory": lambda: bytearray(4 << 30),
}
for name, act in acts.items():
    try:
        act()
        said[name] = True
    except (confine.Confined, MemoryError):
        said[name] = False
import this_is_no_module_but_the_search_reads_folders
""".replace(
    "import this_is_no_module_but_the_search_reads_folders",
    """
said["own code"] = bool(open(confine.__file__).read()) and bool(os.read(handle, 1))
print(json.dumps(said))
""",
)


def test_what_the_child_may_not_do(tmp_path: Path) -> None:
    import socket

    (tmp_path / "secret").write_text("kit")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = [sys.executable, "-c", TRIES, str(tmp_path / "secret"), str(tmp_path / "new"), port]
        path = str(Path(ostiary.__file__).parents[1])
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("own code")
    # Without namespaces or Landlock the audit hook and the limits alone hold.
    assert said.pop("connects") is not said.pop("left network")
    assert said.pop("native open") is not said["hid files"] and said.pop("hid files") is available()
    assert len(said) == 15 and not any(said.values()), said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["secret"]


def moments(folder: Path) -> Iterator[bool]:
    """Whether the conversion has come so far: begun, the output made, a part of it written, nearly done."""
    yield True
    yield any(folder.glob(".new.safetensors.*"))
    yield any(folder.glob(".new.safetensors.*/new.safetensors"))
    yield any(path.stat().st_size > 1 << 20 for path in folder.glob(".new.safetensors.*/new.safetensors"))


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_conversion_leaves_nothing_under_the_name(moment: int, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(8 << 20)}, tmp_path / "m.pt")
    words = [sys.executable, "-m", "ostiary", "convert", "m.pt", "-o", "new.safetensors"]
    env = {**os.environ, "PYTHONPATH": str(Path(ostiary.__file__).parents[1])}
    with subprocess.Popen(
        words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 240
        while process.poll() is None and not list(moments(tmp_path))[moment] and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    out = tmp_path / "new.safetensors"
    if out.exists():  # the kill came after the end
        assert read_header(out.read_bytes()).tensors["w"].shape == (8 << 20,)


def test_the_copy_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"kit")
    with module._copy(tmp_path / "m.pt") as (handle, digest):
        assert os.pread(handle, 9, 0) == b"kit" and digest == sha256_file(tmp_path / "m.pt")
        with pytest.raises(PermissionError):
            os.pwrite(handle, b"x", 0)


def test_the_writer_alone(tmp_path: Path) -> None:
    from ostiary.provenance.convert_child import write

    with pytest.raises(TypeError, match="which safetensors does not have"):
        write({"w": torch.eye(2).to_sparse()}, {}, -1, TYPES, torch)
    with io.FileIO(tmp_path / "new", "w") as stream:
        assert write({"w": W.conj()}, {}, stream.fileno(), TYPES, torch) == 48
