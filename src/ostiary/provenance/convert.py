"""A checkpoint rewritten as safetensors: inspected first, then read as weights only in a child process."""

import hashlib
import json
import mmap
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary import __version__
from ostiary.core.errors import FormatError
from ostiary.core.files import atomic, refuse_existing
from ostiary.provenance.confine import environment
from ostiary.provenance.files import seal, write_all
from ostiary.provenance.pickles import MAX_BYTES, Inspection, inspect_handle
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.safetensors_header import read_header

TORCH = ("torch", "torch (old layout)")
SECONDS = 900
MEMORY = 3 * 2**30
"""Bytes that torch itself may take, beside three times the file."""
RESAVE = "ask its author for safetensors; `ostiary explain CODE` says what a reason means"
_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written: number of tensors, their bytes, the keys that led to them, and the SHA-256 of the source."""

    tensors: int
    bytes: int
    under: tuple[str, ...]
    source_sha256: str


def convert(source: Path | str, out: Path | str) -> Converted:
    """Write the state dict in the checkpoint `source` as safetensors to `out`, which appears whole or not at all.

    The bytes that were inspected are the bytes that are read: a private copy, sealed where the system can. The header
    says the name and the SHA-256 of the source. A tensor under two names is written twice.

    Raises FormatError when `source` cannot be read or is no torch checkpoint, Refused with every reason when the
    inspection or the child refuses it (OS127), OutputError when `out` exists or cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_existing(out)
    with _copy(source) as (handle, digest):
        found = inspect_handle(handle, source.name)
        _check(found, source.name)
        with atomic(out) as temporary:
            metadata = {"format": "pt", "source": ascii(source.name)[1:-1], "source_sha256": digest}
            answer = _in_child(handle, temporary, {**metadata, "converted_by": f"ostiary {__version__}"}, source.name)
            _check_output(temporary, answer, source.name)
    return Converted(answer["tensors"], answer["bytes"], tuple(answer["under"]), digest)


def _check(found: Inspection, name: str) -> None:
    if found.reasons:
        raise Refused(found.reasons, hint=RESAVE)
    if found.format == "safetensors":
        raise FormatError(f"'{name}' is safetensors already", hint="use it as it is")
    if found.format not in TORCH:
        raise FormatError(f"'{name}' is no torch checkpoint but {found.format}", hint=RESAVE)


@contextmanager
def _copy(source: Path) -> Iterator[tuple[int, str]]:
    """A private copy of a file that nobody can change any more, and the SHA-256 of its bytes."""
    with _private() as handle:
        try:
            digest = _fill(handle, source)
        except OSError as error:
            raise FormatError(f"cannot read '{source}': {error.strerror}", hint="check the path of the file") from error
        yield handle, digest


def _fill(handle: int, source: Path) -> str:
    """Copy a regular file and seal the copy; gives the SHA-256 of the bytes."""
    with open(source, "rb", buffering=0, opener=_no_wait) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"'{source}' is no regular file", hint="give the file itself")
        if status.st_size > MAX_BYTES:
            reason = f"{status.st_size} bytes, more than {MAX_BYTES}"
            raise Refused([Reason("OS111", ascii(source.name)[1:-1], reason)])
        digest = hashlib.sha256()
        while piece := stream.read(_PIECE):
            digest.update(piece)
            write_all(handle, piece)
    if hasattr(os, "memfd_create"):
        seal(handle)
    return digest.hexdigest()


def _no_wait(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def _private() -> Iterator[int]:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("checkpoint", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            yield handle
        finally:
            os.close(handle)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


def _in_child(handle: int, temporary: Path, metadata: dict[str, str], name: str) -> dict[str, Any]:
    """Let the child process write `temporary`; what it answers. Raises Refused (OS127) when it does not end well."""
    size = os.fstat(handle).st_size
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        order = {
            "source": handle,
            "out": out,
            "metadata": metadata,
            "memory": MEMORY + 3 * size,
            "written": 2 * size + 2**20,
            "seconds": SECONDS,
        }
        # A fresh interpreter with nothing of this process but two descriptors and the order.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ostiary.provenance.convert_child"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            pass_fds=(handle, out),
            env=environment(),
        )
        os.fsync(out)
    except subprocess.TimeoutExpired:
        raise _failed(name, f"it took longer than {SECONDS} seconds") from None
    finally:
        os.close(out)
    return _answer(done, name)


def _answer(done: "subprocess.CompletedProcess[str]", name: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if done.returncode == 0 and {"tensors", "bytes", "under"} == set(answer):
        return answer
    if error := answer.get("error"):
        raise _failed(name, str(error)[:500])
    ended = f"was stopped by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
    last = (done.stderr.strip().splitlines() or [""])[-1][:200]
    raise _failed(name, f"the process that reads it {ended} {last}".rstrip())


def _failed(name: str, why: str) -> Refused:
    return Refused([Reason("OS127", ascii(name)[1:-1], why)], hint=RESAVE)


def _check_output(path: Path, answer: dict[str, Any], name: str) -> None:
    """Read back the header of what the child wrote, as strictly as that of a stranger."""
    with path.open("rb") as stream:
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    header = read_header(view, ascii(name)[1:-1])
    if len(header.tensors) != answer["tensors"]:
        raise _failed(name, f"{len(header.tensors)} tensors were written of {answer['tensors']}")
