"""What is in a file of weights, told by its bytes and without running any of them.

An allowlist: a file passes when every byte of it is of a kind that weights consist of, and is refused otherwise. That
it passes says nothing of what the weights do.
"""

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ostiary.core.errors import FormatError
from ostiary.provenance.archives import read_archive
from ostiary.provenance.arrays import array_reasons
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.safetensors_header import read_header
from ostiary.provenance.streams import is_pickle, read_pickle
from ostiary.provenance.wrappers import ARCHIVES, COMPRESSED, MAX_UNPACKED, kind_of, unpack

MAX_BYTES = 64 * 2**30
MAX_WRAPPERS = 3
MAX_REASONS = 200
MAX_TEXT_PICKLE = 64 * 2**20
_TAIL = (1 << 16) + 22

# Formats by suffix. Those of pickles promise nothing: torch, joblib and others use them for all they write.
_PROMISES = {
    ".safetensors": ("safetensors",),
    ".npy": ("npy",),
    ".npz": ("npz",),
    **dict.fromkeys((".h5", ".hdf5"), ("HDF5",)),
    ".gguf": ("GGUF",),
    ".tflite": ("TFLite",),
    ".keras": ("zip", "HDF5"),
    **dict.fromkeys((".onnx", ".pb", ".json", ".yaml", ".yml", ".txt", ".md", ".py", ".model", ".msgpack"), (None,)),
}


# Words begin with letters that are opcodes, so that many a text reads like the beginning of an old pickle without a
# mark. Where the name says text, only a pickle that is whole and names something is taken for one.
_TEXTS = (
    *("", ".csv", ".html", ".j2", ".jinja", ".jinja2", ".json", ".jsonl", ".md", ".merges", ".model", ".py"),
    *(".rst", ".toml", ".tsv", ".txt", ".vocab", ".yaml", ".yml"),
)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a file: its format, the names in its pickles, its members, and every reason to refuse it.

    Without reasons the file holds nothing but values of weights and the containers around them.
    """

    format: str
    globals: tuple[str, ...]
    members: tuple[str, ...]
    reasons: tuple[Reason, ...]


def inspect_file(path: Path | str) -> Inspection:
    """Look at all of a regular file; nothing in it is run.

    Raises FormatError when it is missing, cannot be read, or is no regular file.
    """
    path = Path(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {error.strerror}", hint="check the path of the file") from error
    try:
        return inspect_handle(handle, path.name)
    finally:
        os.close(handle)


def inspect_handle(handle: int, name: str) -> Inspection:
    """Look at all of the file behind a descriptor; `name` is what it is called.

    Raises FormatError when it is no regular file.
    """
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"'{name}' is no regular file", hint="give the file itself")
    if not status.st_size:
        return Inspection("empty", (), (), (Reason("OS101", _subject(name), "not examined: the file is empty"),))
    if status.st_size > MAX_BYTES:
        reason = Reason("OS111", _subject(name), f"{status.st_size} bytes, more than {MAX_BYTES}")
        return Inspection("unknown", (), (), (reason,))
    return inspect_bytes(memoryview(mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ)), name)


def inspect_bytes(data: memoryview, name: str) -> Inspection:
    """Look at the whole bytes of a file called `name`."""
    suffix = Path(name).suffix.lower()
    found = _look(data, _subject(name), 0, text=suffix in _TEXTS)
    promised = _PROMISES.get(suffix)
    if promised is not None and found.format not in (*promised, "unknown"):
        what = f"named {ascii(Path(name).suffix)[1:-1]}, and it is {found.format}"
        reasons = (Reason("OS110", _subject(name), what), *found.reasons)
        return Inspection(found.format, found.globals, found.members, reasons)
    return found


def _subject(name: str) -> str:
    return ascii(name)[1:-1][:200]


def _look(data: memoryview, subject: str, depth: int, *, text: bool = False) -> Inspection:
    kind = kind_of(data)
    if kind == "zip":
        return _archive(data, subject)
    found = _look_at(kind, data, subject, depth, text=text)
    # Programs that look for a zip archive from the end find one in a file that begins as something else.
    if b"PK\x05\x06" in bytes(data[-_TAIL:]) and (archive := _archive(data, subject)).members:
        names, members = (*found.globals, *archive.globals), (*found.members, *archive.members)
        return Inspection(found.format, names, members, (*found.reasons, *archive.reasons))
    return found


def _archive(data: memoryview, subject: str) -> Inspection:
    found = read_archive(data, subject)
    return Inspection(found.format, tuple(found.globals), tuple(found.members), tuple(found.reasons[:MAX_REASONS]))


def _look_at(kind: str | None, data: memoryview, subject: str, depth: int, *, text: bool) -> Inspection:
    if kind == "pickle" or (kind is None and len(data) <= MAX_TEXT_PICKLE and is_pickle(data, whole=text)):
        form, names, reasons = read_pickle(data, subject)
        return Inspection(form, tuple(names), (), tuple(reasons))
    if kind == "safetensors":
        return _safetensors(data, subject)
    if kind == "npy":
        return Inspection("npy", (), (), tuple(array_reasons(data, subject)))
    if kind in COMPRESSED:
        return _compressed(str(kind), data, subject, depth)
    if kind in ARCHIVES:
        return Inspection(str(kind), (), (), (Reason("OS143", subject, f"a {kind} archive"),))
    what = f"a {kind} file" if kind else f"the bytes {bytes(data[:12])!r} begin no format that is known"
    return Inspection(kind or "unknown", (), (), (Reason("OS101", subject, f"not examined: {what}"),))


def _safetensors(data: memoryview, subject: str) -> Inspection:
    try:
        return Inspection("safetensors", (), tuple(read_header(data, subject).tensors), ())
    except Refused as refused:
        return Inspection("safetensors", (), (), refused.reasons)


def _compressed(kind: str, data: memoryview, subject: str, depth: int) -> Inspection:
    """Refused as it is; what is inside adds its own reasons."""
    reasons = [Reason("OS142", subject, f"compressed by {kind}")]
    inner = unpack(kind, data) if depth < MAX_WRAPPERS else None
    if depth >= MAX_WRAPPERS:
        reasons.append(Reason("OS111", subject, f"compressed more than {MAX_WRAPPERS} times over"))
    if inner is not None and len(inner) > MAX_UNPACKED:
        reasons.append(Reason("OS144", subject, f"unpacks to more than {MAX_UNPACKED} bytes"))
    elif inner:
        found = _look(memoryview(inner), f"{subject}/{kind}", depth + 1)
        return Inspection(f"{kind} of {found.format}", found.globals, found.members, (*reasons, *found.reasons))
    return Inspection(kind, (), (), tuple(reasons))
