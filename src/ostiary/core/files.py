"""Writing outputs so that nothing half-written is ever found under the asked-for name."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.core.errors import OutputError


def refuse_existing(path: Path) -> None:
    """Raise OutputError when `path` exists."""
    if path.exists():
        raise OutputError(
            f"'{path}' exists already", hint="choose another name, or move it away; nothing is overwritten"
        )


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write '{path}': {(error.strerror or str(error)).lower()}",
        hint="free space or choose another place with -o; nothing was left under that name",
    )


@contextmanager
def atomic(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it into place when the block succeeds.

    Works for files and folders. Raises OutputError when `path` exists (unless `replace`, for files
    only) or cannot be written.
    """
    if not replace:
        refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _failed(path, error) from error
    try:
        temporary = holder / path.name
        yield temporary
        if not replace:
            refuse_existing(path)
        os.replace(temporary, path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: Path, text: str, *, replace: bool = False) -> None:
    """Write UTF-8 text atomically, flushed to the disk."""
    with atomic(path, replace=replace) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
