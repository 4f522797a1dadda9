"""Reading the public leaderboard of BackdoorBench, to show its figures beside ours and marked as theirs."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ostiary.core.errors import FormatError

NAMES = ("dataset", "backbone", "attack_name", "defense_name")
FIGURES = ("test_acc", "test_asr", "test_ra")
COLUMNS = ("", *NAMES, "ratio", *FIGURES)
"""The header of the file of 2024-11-22; the first column, without a name, numbers the rows."""

MAX_BYTES = 16 * 2**20
"""Eighteen times the size of the published file."""

HINT = "the file meant is static/data/results.csv of github.com/backdoorbench/backdoorbench.github.io, as of 2024-11-22"


@dataclass(frozen=True, slots=True)
class TheirRow:
    """One row of the leaderboard, measured by its authors and not by us; names are spelled as they spell them.

    `rate`, `accuracy`, `success` and `robust` lie in [0, 1]. Where the file has no figure all three
    figures are None and `reason` says why; else `reason` is empty.
    """

    dataset: str
    architecture: str
    rate: float
    attack: str
    defence: str
    accuracy: float | None
    success: float | None
    robust: float | None
    reason: str = ""
    origin: str = "BackdoorBench"

    @property
    def key(self) -> tuple[str, str, float, str, str]:
        """What tells this row from all others."""
        return (self.dataset, self.architecture, self.rate, self.attack, self.defence)


def read_backdoorbench(path: Path) -> tuple[TheirRow, ...]:
    """The rows of the leaderboard file at `path`, in its order.

    Raises FormatError, with the line, for a file that is missing, too large, no UTF-8, of other
    columns, or that has a cell of the wrong type or out of range, or a row twice.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise FormatError(f"'{path}' has {size} bytes, at most {MAX_BYTES} are read", hint=HINT)
        with path.open(encoding="utf-8", newline="") as stream:
            return tuple(_unique(_rows(stream, str(path)), str(path)))
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {(error.strerror or str(error)).lower()}", hint=HINT) from error
    except UnicodeDecodeError as error:
        raise FormatError(f"'{path}' is not text in UTF-8", hint=HINT) from error


def _rows(lines: Iterable[str], where: str) -> Iterator[tuple[int, TheirRow]]:
    """Each row with its line."""
    reader = csv.reader(lines, strict=True)
    try:
        _check_header(next(reader, []), where)
        for cells in reader:
            yield reader.line_num, _row(cells, f"'{where}' line {reader.line_num}")
    except csv.Error as error:
        raise FormatError(f"'{where}' line {reader.line_num}: {error}", hint=HINT) from error


def _check_header(header: list[str], where: str) -> None:
    for kind, names in (("unknown", set(header) - set(COLUMNS)), ("missing", set(COLUMNS) - set(header))):
        if names:
            listed = ", ".join(repr(name[:40]) for name in sorted(names)[:5])
            raise FormatError(f"'{where}' line 1: {kind} columns {listed}", hint=HINT)
    if tuple(header) != COLUMNS:
        raise FormatError(f"'{where}' line 1: columns twice or in another order", hint=HINT)


def _unique(rows: Iterable[tuple[int, TheirRow]], where: str) -> Iterator[TheirRow]:
    seen: dict[tuple[str, str, float, str, str], int] = {}
    for line, row in rows:
        if row.key in seen:
            raise FormatError(f"'{where}' line {line}: the same cell as line {seen[row.key]}: {row.key}", hint=HINT)
        seen[row.key] = line
        yield row


def _row(cells: list[str], where: str) -> TheirRow:
    if len(cells) != len(COLUMNS):
        raise FormatError(f"{where}: {len(cells)} cells, not {len(COLUMNS)}", hint=HINT)
    named = dict(zip(COLUMNS, cells, strict=True))
    for name in NAMES:
        if not named[name].strip() or not named[name].isprintable() or len(named[name]) > 100:
            raise FormatError(f"{where}: {name} is no name: {named[name][:40]!r}", hint=HINT)
    dataset, architecture, attack, defence = (named[name] for name in NAMES)
    rate = _share(named["ratio"], f"{where}: ratio")
    reason = next((why for name in FIGURES if (why := _gap(name, named[name]))), "")
    figures = [_share(named[name], f"{where}: {name}") for name in FIGURES if not _gap(name, named[name])]
    accuracy, success, robust = [None] * 3 if reason else figures
    return TheirRow(dataset, architecture, rate, attack, defence, accuracy, success, robust, reason)


def _gap(name: str, cell: str) -> str:
    """Why a cell holds no figure; empty when it should hold one."""
    if not cell.strip():
        return f"{name} is blank in the file"
    return f"{name} is -1 in the file, its mark of a failed run" if _number(cell) == -1 else ""


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _share(cell: str, where: str) -> float:
    value = _number(cell)
    if value is None:
        raise FormatError(f"{where} is no number: {cell[:40]!r}", hint=HINT)
    if not 0 <= value <= 1:
        raise FormatError(f"{where} is {value:g}, outside 0..1", hint=HINT)
    return value
