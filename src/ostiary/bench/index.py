"""An SQLite index over a store's records, so that tables need not read every file; and all rows as Parquet.

The JSON records are the truth. The index lies at `STORE/sealed/index.sqlite`, follows them file by
file, and is built again when it is missing, damaged or of another version; to delete it loses nothing.
"""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ostiary.bench.store import Row, Store, read_record
from ostiary.core.files import atomic

VERSION = 1
"""Raised when the index holds other things than before."""

NAME = "index.sqlite"
KINDS = ("cells", "failed")
TABLE = """CREATE TABLE record (
    kind TEXT, name TEXT, size INTEGER, changed INTEGER, key TEXT, number INTEGER, crc INTEGER, row TEXT,
    PRIMARY KEY (kind, name));
CREATE INDEX by_key ON record (key, kind, number);"""
LATEST = """SELECT row, crc FROM record AS one WHERE kind = 'cells'
    OR (key NOT IN (SELECT key FROM record WHERE kind = 'cells')
        AND number = (SELECT max(number) FROM record WHERE kind = 'failed' AND key = one.key))
    ORDER BY key"""


class _Damaged(Exception):
    """The index is not what was written into it."""


def rows(store: Store) -> list[Row]:
    """The finished row of every cell, and the last failure of those that have none, by key.

    Records that the store finds damaged are set aside and listed in `store.damaged`. Several
    processes may call this at once. Where the store cannot be written, nothing is kept.
    """
    try:
        with store.hold("index"):
            return _kept(store, store.sealed / NAME)
    except (OSError, sqlite3.Error):
        with closing(_opened(":memory:")) as index:
            return _rows(index, store)


def _kept(store: Store, path: Path) -> list[Row]:
    try:
        with closing(_opened(path)) as index:
            return _rows(index, store)
    except (sqlite3.DatabaseError, _Damaged):
        # A journal left behind belongs to the old file: it would be played into the new one.
        for name in (path, path.with_name(f"{NAME}-journal")):
            name.unlink(missing_ok=True)
    with closing(_opened(path)) as index:
        return _rows(index, store)


def _opened(path: Path | str) -> sqlite3.Connection:
    index = sqlite3.connect(path)
    try:
        version = index.execute("PRAGMA user_version").fetchone()[0]
        if not index.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            index.executescript(f"{TABLE} PRAGMA user_version = {VERSION};")
        elif version != VERSION or index.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise _Damaged
    except BaseException:
        index.close()
        raise
    return index


def _rows(index: sqlite3.Connection, store: Store) -> list[Row]:
    with index:
        _refresh(index, store)
    found = []
    for text, crc in index.execute(LATEST):
        if zlib.crc32(text.encode()) != crc:
            raise _Damaged
        found.append(json.loads(text))
    return found


def _refresh(index: sqlite3.Connection, store: Store) -> None:
    """Make the index hold exactly the files that are there."""
    there = {(kind, name): stamp for kind in KINDS for name, stamp in _files(store.sealed / kind)}
    known = {
        (kind, name): tuple(rest) for kind, name, *rest in index.execute("SELECT kind, name, size, changed FROM record")
    }
    old = [file for file, stamp in known.items() if there.get(file) != stamp]
    index.executemany("DELETE FROM record WHERE kind = ? AND name = ?", old)
    unsound = False
    for (kind, name), stamp in there.items():
        if known.get((kind, name)) == stamp:
            continue
        row = _sound(store.sealed / kind / name)
        if row is None:
            unsound = True
            continue
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        number = int(name.removesuffix(".json").rpartition("-")[2]) if kind == "failed" else 0
        entry = (kind, name, *stamp, row["key"], number, zlib.crc32(text.encode()), text)
        index.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entry)
    if unsound:
        # The store itself sets such files aside and tells of them.
        store.finished()
        store.failures()


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and entry.is_file():
                stat = entry.stat()
                yield entry.name, (stat.st_size, stat.st_mtime_ns)


def _sound(file: Path) -> Row | None:
    """The record of a file when it is what the store wrote."""
    try:
        return read_record(file)
    except (OSError, ValueError):
        return None


# --- Parquet ------------------------------------------------------------------------------------


def export_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write `rows` as one Parquet table, a row each.

    A rate becomes five columns: its value under its name, and `_low`, `_high`, `_k` and `_n`; a
    measure becomes one. Spaces and hyphens in names become underscores. What is nested (parameters,
    machine, cautions) is JSON text. Raises OutputError when `path` exists or cannot be written.
    """
    flat = [_flat(row) for row in rows]
    columns = {}
    for name in dict.fromkeys(name for row in flat for name in row):
        column = pa.array([row.get(name) for row in flat])
        columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name not in ("rates", "measures"):
            flat[name] = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
    for name, rate in row["rates"].items():
        flat[_column(name)] = rate["value"]
        flat |= {f"{_column(name)}_{part}": rate[part] for part in ("low", "high", "k", "n")}
    return flat | {_column(name): value for name, value in row["measures"].items()}


def _column(name: str) -> str:
    return name.replace(" ", "_").replace("-", "_")
