"""Where records live: one folder a run, rewritten whole after every finished method.

`$OSTIARY_RUNS` or `./ostiary-runs/` holds `<utc>-<verb>-<id>/record.json` and `artifacts/*.npy`.
Each write goes to a temporary name and is renamed, so a kill loses nothing that was finished.
"""

import io
import json
import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ostiary.core.errors import FormatError, OutputError
from ostiary.core.files import sha256_file, write_text
from ostiary.core.records import SCHEMA_VERSION, Artifact, Record

MAX_RECORD_BYTES = 64 * 2**20


def runs_root() -> Path:
    """`$OSTIARY_RUNS`, else `ostiary-runs` in the working directory."""
    return Path(os.environ.get("OSTIARY_RUNS") or "ostiary-runs")


@dataclass(slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path
    id: str
    created: str
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @classmethod
    def create(cls, verb: str) -> "RunFolder":
        """Make a new folder named after the time, the verb and a random id; raises OutputError."""
        now = datetime.now(UTC)
        run_id = secrets.token_hex(4)
        path = runs_root() / f"{now:%Y%m%dT%H%M%SZ}-{verb}-{run_id}"
        try:
            (path / "artifacts").mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the run folder '{path}': {(error.strerror or str(error)).lower()}",
                hint="set OSTIARY_RUNS to a folder that can be written",
            ) from error
        return cls(path, run_id, f"{now:%Y-%m-%dT%H:%M:%SZ}")

    def keep(self, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays as artifacts; a name written before is replaced."""
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            relative = f"artifacts/{name}.npy"
            target = self.path / relative
            temporary = target.with_suffix(".part")
            try:
                temporary.write_bytes(buffer.getvalue())
                os.replace(temporary, target)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise OutputError(f"cannot write '{target}': {(error.strerror or str(error)).lower()}") from error
            self.artifacts[name] = Artifact(
                path=relative, shape=array.shape, dtype=str(array.dtype), sha256=sha256_file(target)
            )

    def write(self, record: Record) -> None:
        """Write record.json, replacing an earlier state of the same run."""
        write_text(self.path / "record.json", record.to_json(), replace=True)


def read_record(where: str | Path) -> tuple[Record, Path]:
    """Read a record by its file, its folder or its run id; gives the record and its folder.

    Raises FormatError when there is none, it is too large, ill-formed or of a newer schema.
    """
    path = Path(where)
    if not path.exists():
        matches = sorted(runs_root().glob(f"*-{where}")) if str(where).isalnum() else []
        if not matches:
            raise FormatError(f"no record at '{where}'", hint="`ostiary runs` lists the runs that are kept")
        path = matches[-1]
    file = path / "record.json" if path.is_dir() else path
    try:
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise FormatError(f"'{file}' is larger than {MAX_RECORD_BYTES >> 20} MiB, too large for a record")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read '{file}': {error}", hint="name a run folder or its record.json") from error
    try:
        return Record.model_validate_json(text), file.parent
    except ValidationError as error:
        raise _unreadable(file, text, error) from error


def _unreadable(file: Path, text: str, error: ValidationError) -> FormatError:
    try:
        version = json.loads(text).get("schema_version")
    except (ValueError, AttributeError, RecursionError):
        return FormatError(f"'{file}' is not a record", hint="name a run folder or its record.json")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return FormatError(
            f"'{file}' has schema version {version}, this ostiary reads up to {SCHEMA_VERSION}", hint="upgrade ostiary"
        )
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return FormatError(f"'{file}' is not a valid record: {where}: {first['msg'].lower()}")


def load_artifact(record: Record, folder: Path, name: str) -> np.ndarray:
    """Read an artifact of a record; raises FormatError when it is missing or not the bytes that were recorded."""
    entry = record.artifacts.get(name)
    path = folder / entry.path if entry is not None else folder
    if entry is None or not path.is_file() or folder.resolve() not in path.resolve().parents:
        raise FormatError(f"the record in '{folder}' has no artifact '{name}'", hint="run the verb again")
    if sha256_file(path) != entry.sha256:
        raise FormatError(f"'{path}' was changed since it was recorded", hint="run the verb again")
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"'{path}' is not an array: {error}", hint="run the verb again") from error
