"""Where a grid's results live: one immutable JSON per cell, models and sets beside them, truth apart.

    STORE/store.json            schema
    STORE/sets/NAME/            packed image sets: the pools, test parts, trusted sets
    STORE/models/NAME/          what a defence may see of a model: weights, suspect data, inputs to judge
    STORE/work/NAME/made/       what a defence made
    STORE/sealed/               hidden from defences: cells, recipes, truth, index, locks, damaged records

A defence is shown the one model, the trusted set and the work folder of its cell, by the kernel where
it can (`core.landlock`). Names outside `sealed` are salted hashes and tell nothing about what is
inside. All files are written under temporary names and renamed; several processes may write one store.
"""

import fcntl
import hashlib
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ostiary.bench.cells import digest_of
from ostiary.core.errors import FormatError, OutputError
from ostiary.core.files import atomic

SCHEMA = 1
MODEL, DATA, INPUTS_DIR = "model.safetensors", "data", "inputs"
"""What lies in a model's folder: weights, suspect training data, inputs for guards."""
PUBLIC = ("sets", "models", "work")
OWN = {*PUBLIC, "sealed", "store"}
"""What a store's folder holds, without endings."""
MAX_CELL_BYTES = 4 * 2**20
Row = dict[str, Any]


class Store:
    """A store on disk. Raises FormatError when `path` holds something else or a newer schema."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.sealed = path / "sealed"
        self.damaged: list[str] = []
        about = path / "store.json"
        if not about.exists():
            if not create:
                raise FormatError(f"no store at '{path}'", hint="`ostiary bench run GRID.toml --store DIR` makes one")
            # What is ours may be there already: of a process that creates it just now, or was killed at it.
            there = {one.name.lstrip(".").split(".")[0] for one in path.iterdir()} if path.exists() else set()
            if there and not {"sealed"} <= there <= OWN:
                raise FormatError(f"'{path}' is not empty and no store", hint="name a new folder")
            self._create(about)
        try:
            schema = json.loads(about.read_text(encoding="utf-8"))["schema"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"'{about}' is not a store's: {error}", hint="name another folder") from error
        if not isinstance(schema, int) or schema > SCHEMA:
            raise FormatError(f"'{path}' was written by a newer ostiary (schema {schema})", hint="upgrade ostiary")
        self._salt = (self.sealed / "salt").read_text(encoding="utf-8")

    def _create(self, about: Path) -> None:
        try:
            for name in ("cells", "failed", "models", "truth", "locks", "runs", "damaged"):
                (self.sealed / name).mkdir(parents=True, exist_ok=True)
            for name in PUBLIC:
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the store '{self.path}': {(error.strerror or str(error)).lower()}"
            ) from error
        with self.hold("create"):
            _write_once(self.sealed / "salt", secrets.token_hex(16))
            _write_once(about, json.dumps({"schema": SCHEMA}) + "\n")

    def name(self, key: str) -> str:
        """The public name of something: tells nothing to who does not know the salt."""
        return hashlib.sha256((self._salt + key).encode()).hexdigest()[:24]

    def set_dir(self, key: str) -> Path:
        """The packed set of a key."""
        return self.path / "sets" / self.name(key)

    def model_dir(self, key: str) -> Path:
        """The public half of a model."""
        return self.path / "models" / self.name(key)

    def work_dir(self, key: str) -> Path:
        """What the defence of a cell made; the folder around it is all of `work` that this defence may see."""
        return self.path / "work" / self.name(key) / "made"

    def truth_dir(self, key: str) -> Path:
        """The sealed half of a model; its name ends so that the seal's hook knows it too."""
        return self.sealed / "truth" / f"{key[:24]}.truth"

    def finished(self, kind: str = "cells") -> dict[str, Row]:
        """All sound records of a kind (`cells` or `models`), by key; damaged ones are set aside, see `damaged`."""
        found = {}
        for file in sorted((self.sealed / kind).glob("*.json")):
            row = self._read(file)
            if row is not None:
                found[row["key"]] = row
        return found

    def failures(self) -> dict[str, Row]:
        """The last failure of every cell that has failed, by key; a cell may have been finished since."""
        found = {}
        for file in sorted(
            (self.sealed / "failed").glob("*.json"), key=lambda one: (one.stem[:24], int(one.stem[25:]))
        ):
            row = self._read(file)
            if row is not None:
                found[row["key"]] = row
        return found

    def model(self, key: str) -> Row | None:
        """The record of a model, None when it is not made yet."""
        file = self.sealed / "models" / f"{key[:24]}.json"
        return self._read(file) if file.exists() and self.model_dir(key).exists() else None

    def has(self, key: str, kind: str = "cells") -> bool:
        """Whether a record of a kind (`cells` or `models`) is there."""
        return (self.sealed / kind / f"{key[:24]}.json").exists()

    def keep(self, row: Row, kind: str = "cells") -> None:
        """Write a finished record once and for all; one that is there already stays."""
        _write_once(self.sealed / kind / f"{row['key'][:24]}.json", record_text(row, 1) + "\n")

    def fail(self, row: Row) -> None:
        """Write a failure; earlier ones of the same cell stay beside it."""
        stem = row["key"][:24]
        number = len(list((self.sealed / "failed").glob(f"{stem}-*.json"))) + 1
        _write_once(self.sealed / "failed" / f"{stem}-{number}.json", record_text(row, 1) + "\n")

    def note_run(self, row: Row) -> None:
        """Keep what one call of the runner spent."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        _write_once(self.sealed / "runs" / f"{stamp}.json", json.dumps(row, indent=1, allow_nan=False) + "\n")

    def runs(self) -> list[Row]:
        """What every call of the runner spent, in order of time."""
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((self.sealed / "runs").glob("*.json"))]

    def hold(self, key: str) -> IO[str]:
        """The right to work on `key`, waited for, until the file is closed or this process ends, however it ends."""
        file = self._lock(key)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def claim(self, key: str) -> IO[str] | None:
        """As `hold`, but None when another process has it."""
        file = self._lock(key)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _lock(self, key: str) -> IO[str]:
        return (self.sealed / "locks" / key[:24]).open("w", encoding="utf-8")

    def _read(self, file: Path) -> Row | None:
        """A record, or None after it was set aside as damaged."""
        try:
            return read_record(file)
        except (OSError, ValueError) as error:
            self._set_aside(file, error)
            return None

    def _set_aside(self, file: Path, error: Exception) -> None:
        target = self.sealed / "damaged" / f"{file.name}.{secrets.token_hex(3)}"
        try:
            os.replace(file, target)
        except FileNotFoundError:
            return  # another process was quicker
        self.damaged.append(f"{file.name}: {error}; set aside as '{target}'")


def record_text(row: Row, indent: int | None = None) -> str:
    """A row as JSON with its digest beside it."""
    return json.dumps({"row": row, "sha256": digest_of(row)}, indent=indent, ensure_ascii=False, allow_nan=False)


def record_of(text: str) -> Row:
    """The row of a text that `record_text` made; ValueError when it is none or was changed."""
    if len(text) > MAX_CELL_BYTES:
        raise ValueError("too long for a record")
    document = json.loads(text)
    try:
        row: Row = document["row"]
        sound = document["sha256"] == digest_of(row) and len(row["key"]) == len(digest_of(""))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no record: {error}") from error
    if not sound:
        raise ValueError("its content does not match its digest")
    return row


def read_record(file: Path) -> Row:
    """The row in one of a store's files; OSError or ValueError when it is not what was written there."""
    if file.stat().st_size > MAX_CELL_BYTES:
        raise ValueError("too long for a record")
    row = record_of(file.read_text(encoding="utf-8"))
    if not file.stem.startswith(row["key"][:24]):
        raise ValueError("it is another cell's")
    return row


def _write_once(path: Path, text: str) -> None:
    """Write a file unless it is there; several processes may try at once."""
    if path.exists():
        return
    with atomic(path, replace=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
