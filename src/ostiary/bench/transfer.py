"""Rows out of a store and into another: JSON lines, each with its digest; and what other tools published."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostiary.bench.backdoorbench import TheirRow, read_backdoorbench
from ostiary.bench.store import Row, Store, record_of, record_text
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.files import atomic, write_text

THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Taken:
    """What an import did: rows that are new, rows that were there, lines that are damaged, with the reason."""

    new: int
    known: int
    damaged: tuple[str, ...] = ()


def export_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines, nothing left out; raises OutputError when `path` exists."""
    write_text(path, "".join(f"{record_text(row)}\n" for row in rows))


def import_file(store: Store, path: Path) -> Taken:
    """Take rows that `export_rows` wrote (.jsonl), or the published results of BackdoorBench (.csv).

    Rows of ours count as the store's own; others are kept apart. Raises FormatError for what cannot
    be read, ConfigError for another kind of file.
    """
    if path.suffix == ".csv":
        rows = read_backdoorbench(path)
        target = store.path / THEIRS / path.name
        if not target.exists():
            with atomic(target) as temporary:
                shutil.copyfile(path, temporary)
        return Taken(len(rows), 0)
    if path.suffix != ".jsonl":
        raise ConfigError(
            f"'{path}' is neither .jsonl nor .csv", hint="`ostiary bench export -o FILE.jsonl` writes one"
        )
    new, known, damaged = 0, 0, []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = record_of(line)
            _ = row["status"], row["rates"], row["measures"], row["defence"]
        except (ValueError, KeyError) as error:
            damaged.append(f"line {number}: {error}")
            continue
        if store.has(row["key"]):
            known += 1
            continue
        new += 1
        keep = store.keep if row["status"] in ("ok", "skipped", "partial") else store.fail
        keep(row)
    return Taken(new, known, tuple(damaged))


def their_rows(store: Store) -> tuple[TheirRow, ...]:
    """All results of others that were imported into a store."""
    files = sorted((store.path / THEIRS).glob("*.csv"))
    return tuple(row for file in files for row in read_backdoorbench(file))
