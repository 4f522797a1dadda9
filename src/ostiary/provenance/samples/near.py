"""Texts that are nearly equal: rows of a file that share most of their sequences of three words."""

import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ostiary.core.errors import FormatError
from ostiary.provenance.samples.sorting import Entry, Sorted

ALIKE = 0.8
"""The share of common sequences from which two texts are nearly equal, as their signatures tell it."""
BANDS, EACH = 16, 4
"""Two texts are compared where one of `BANDS` parts of `EACH` numbers of their signatures is equal."""
LENGTH = 3
BLOCK = 4096
"""Sequences of a text that are hashed at a time, so that memory does not grow with its length."""
SHOWN = 120
"""Characters of a text that a group shows."""
WORD = re.compile(r"\w+")
_ODD, _ADD = (
    np.random.default_rng(seed).integers(2**63, size=(BANDS * EACH, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(one)
    for seed, one in ((1, 1), (2, 0))
)
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
Signature = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Near:
    """Rows that are nearly equal, each to the first or to another of the group: id and label, and how the first begins.

    `alike` is the least estimate of what two of them share that were held against one another.
    """

    samples: tuple[tuple[str, str | None], ...]
    alike: float
    text: str


@dataclass(slots=True)
class Counts:
    """How many rows were read, and how many could not be."""

    rows: int = 0
    damaged: int = 0


@dataclass(slots=True)
class _First:
    """How the first text of a group begins, its digest, and whether another of the group differs."""

    begins: str
    digest: bytes
    differ: bool = False


def near_groups(path: Path, counts: Counts) -> Iterator[Near]:
    """All groups of nearly equal texts in a file, in the order of their first rows; those that are all equal are none.

    MinHash signatures (Broder 1997) of sequences of three words, case and marks left out, compared where they share a
    band (Indyk, Motwani 1998): of two texts that share four fifths of their sequences 99.9 % are compared, of two that
    share half 64 %. An answer counts with its prompt. The file is read twice; memory holds 20 bytes a row and the ids
    and labels of groups that are not whole yet, beside what `Sorted` does; signatures go to an unnamed file. Rows that
    cannot be read are counted in `counts` and left out.

    Raises FormatError for a file that cannot be read at all, and for one that changes its length meanwhile.
    """
    with tempfile.TemporaryFile(buffering=2**20) as kept:
        pairs = Sorted(_pairs(_signed(path, kept, counts)))
        try:
            leader, least = _joined(pairs, kept, counts.rows)
        finally:
            pairs.close()
    found: dict[int, list[tuple[str, str | None]]] = {}
    texts: dict[int, _First] = {}
    sizes = np.bincount(leader, minlength=1)
    for row, (identity, label, text) in enumerate(_rows(path, Counts())):
        if row >= len(leader):
            raise _changed(path)
        first = int(leader[row])
        if sizes[first] < 2:
            continue
        found.setdefault(first, []).append((identity, label))
        digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
        begun = texts.setdefault(first, _First(text[:SHOWN], digest))
        begun.differ |= begun.digest != digest
        if len(found[first]) == sizes[first]:
            del texts[first]
            samples = tuple(found.pop(first))
            if begun.differ:
                yield Near(samples, float(least[first]), begun.begins)
    if found:
        raise _changed(path)


def signature(text: str) -> Signature:
    """The least of each of 64 hashes over a text's sequences of three words; of all its words where there are fewer."""
    words = np.array([zlib.crc32(word.encode()) for word in WORD.findall(text.lower())] or [0], np.uint64)
    if len(words) < LENGTH:
        words = np.pad(words, (0, LENGTH - len(words)))
    rolled = sum(words[at : len(words) - LENGTH + 1 + at] * _MIX[at] for at in range(LENGTH))
    shingles = np.unique(np.asarray(rolled))
    shingles ^= shingles >> np.uint64(29)
    least = np.full(BANDS * EACH, 2**32 - 1, np.uint32)
    for start in range(0, len(shingles), BLOCK):
        hashed = (shingles[None, start : start + BLOCK] * _ODD + _ADD) >> np.uint64(32)
        least = np.minimum(least, hashed.min(1).astype(np.uint32))
    return least


def _changed(path: Path) -> FormatError:
    return FormatError(f"{path.name}: changed while it was read", hint="try again once nothing writes to it")


def _rows(path: Path, counts: Counts) -> Iterator[tuple[str, str | None, str]]:
    """Id, label and text of every row that can be read."""
    from ostiary.data.text_files import DAMAGED, opened_rows

    try:
        with opened_rows(path) as rows:
            yield from _read(rows, counts)
    except DAMAGED as error:
        raise FormatError(f"{path.name}: cannot be read ({error})") from error


def _read(rows: Iterable[tuple[int, dict[str, Any] | str]], counts: Counts) -> Iterator[tuple[str, str | None, str]]:
    from ostiary.data.text_files import BadRow, row_id, row_reader

    how = None
    for number, row in rows:
        try:
            if isinstance(row, str):
                raise BadRow(row)
            how = how or row_reader(row, None)
            text, value = how[1](row)
        except BadRow:
            counts.damaged += 1
            continue
        counts.rows += 1
        name, talk = row_id(row) or f"row-{number}", how[0] == "chat"
        yield name, None if talk else str(value), f"{text}\n{value}" if talk else text


def _signed(path: Path, kept: IO[bytes], counts: Counts) -> Iterator[tuple[int, Signature]]:
    for row, (_, _, text) in enumerate(_rows(path, counts)):
        made = signature(text)
        kept.write(made.tobytes())
        yield row, made


def _pairs(signed: Iterable[tuple[int, Signature]]) -> Iterator[Entry]:
    """Pairs of rows that share a band: each with the first of its bucket, and with the one before it."""
    buckets = Sorted(
        (bytes([band]) + made[band * EACH : (band + 1) * EACH].tobytes(), row.to_bytes(8, "big"))
        for row, made in signed
        for band in range(BANDS)
    )
    try:
        for _, entries in groupby(buckets, key=lambda entry: entry[0]):
            first = before = b""
            for _, row in entries:
                if not first:
                    first = before = row
                    continue
                yield first + row, b""
                if before != first:
                    yield before + row, b""
                before = row
    finally:
        buckets.close()


def _joined(pairs: Sorted, kept: IO[bytes], rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first row of the group of every row, and for each first row the least estimate in its group."""
    leader, least = np.arange(rows), np.ones(rows, np.float32)
    width = BANDS * EACH * 4

    def read(row: int) -> Signature:
        kept.seek(row * width)
        return np.frombuffer(kept.read(width), np.uint32)

    def root(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = int(leader[row])
        return row

    last: tuple[int, Signature] | None = None
    for key, _ in groupby(pairs, key=lambda entry: entry[0]):
        one, other = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        if last is None or last[0] != one:
            last = one, read(one)
        alike = float((last[1] == read(other)).mean())
        if alike >= ALIKE:
            low, high = sorted((root(one), root(other)))
            leader[high] = low
            least[low] = min(least[low], least[high], alike)
    for row in range(rows):
        leader[row] = root(row)
    return leader, least
