"""What is in the files of weights under some paths, on record: `pickles.inspect_file` for a file or a whole folder."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

import ostiary
from ostiary.core.errors import FormatError
from ostiary.core.records import Frozen
from ostiary.provenance.decision import Ground, grounds
from ostiary.provenance.files import NO_FOLLOW, listed, open_regular, opened_root
from ostiary.provenance.pickles import inspect_handle
from ostiary.provenance.refusal import Refused

SCHEMA_VERSION: Literal[1] = 1
WEIGHTS = frozenset(
    f".{suffix}"
    for suffix in (
        *("bin", "ckpt", "gguf", "h5", "hdf5", "joblib", "keras", "msgpack", "npy", "npz", "onnx", "pb", "pickle"),
        *("pkl", "pt", "pth", "safetensors", "tar", "tflite", "weights"),
    )
)
"""Suffixes that promise weights: inside of a folder, too, such a file must be of a kind that can be looked at."""
NEITHER = ("unknown", "empty")


class InspectedFile(Frozen):
    """One file: what it is, the SHA-256 of its bytes, and every reason against it.

    A folder that could not be listed has no digest. `weights` is False for what lies beside them in a folder (a
    configuration, a text), which is not examined.
    """

    path: str
    format: str
    sha256: str | None
    weights: bool
    reasons: tuple[Ground, ...] = ()


class Inspections(Frozen):
    """What was looked at in one call.

    `allowed` says that all weights are of formats in which nothing runs, and never what the weights do; `incomplete`
    that there were none.
    """

    kind: Literal["inspect"] = "inspect"
    schema_version: Literal[1] = SCHEMA_VERSION
    ostiary: str = ostiary.__version__
    created: str
    command: tuple[str, ...] = ()
    decision: Literal["allowed", "refused", "incomplete"]
    files: tuple[InspectedFile, ...]

    def to_json(self) -> str:
        """The record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def inspect_paths(paths: Sequence[Path | str]) -> Inspections:
    """Look at every file under `paths`; nothing in them is run.

    Files that are named must be weights that pass (OS101, OS110 to OS149). Of a folder everything that is weights by
    its bytes or by its name must pass, and the rest is listed. Links and odd names are refused as in `digest`.

    Raises FormatError for what is missing or cannot be read.
    """
    files = tuple(one for path in paths for one in _looked_at(Path(path)))
    refused = any(one.reasons for one in files)
    seen = any(one.weights for one in files)
    return Inspections(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        decision="refused" if refused else "allowed" if seen else "incomplete",
        files=files,
    )


def _looked_at(path: Path) -> list[InspectedFile]:
    try:
        return list(_under(path))
    except Refused as error:
        return [
            InspectedFile(path=str(path), format="folder", sha256=None, weights=True, reasons=grounds(error.reasons))
        ]


def _under(path: Path) -> Iterator[InspectedFile]:
    if not path.is_dir():
        try:
            handle = os.open(path, NO_FOLLOW & ~os.O_NOFOLLOW)
        except OSError as error:
            raise FormatError(f"cannot read '{path}': {error.strerror}", hint="check the path of the file") from error
        yield _inspected(handle, str(path), named=True)
        return
    with opened_root(path) as root:
        for name in listed(root).files:
            yield _inspected(open_regular(root.descriptor, name), str(PurePosixPath(path) / name), named=False)


def _inspected(handle: int, path: str, *, named: bool) -> InspectedFile:
    """Look at the file behind a descriptor, which is closed."""
    with os.fdopen(handle, "rb") as stream:
        found = inspect_handle(handle, PurePosixPath(path).name)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    promised = PurePosixPath(path).suffix.lower() in WEIGHTS
    weights = named or promised or found.format not in NEITHER
    reasons = grounds(found.reasons) if weights else ()
    return InspectedFile(path=path, format=found.format, sha256=digest, weights=weights, reasons=reasons)
