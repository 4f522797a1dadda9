"""Rows that repeat one another: the same words, or nearly, under one label or answer or under several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.provenance.samples.near import ALIKE, BANDS, EACH, WORD, signature
from ostiary.screen.phrases import printable

CHUNK = 10_000
"""Rows between two looks at the time, and pairs that are held against one another at once."""
NAMED = 3
"""Rows that a caution names."""
MANY = 0.01
"""The share of rows that repeat another from which a user is told, whatever their labels or answers are."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often the rows of a set repeat one another.

    `exact` rows have the words of an earlier one, `near` others are nearly equal to one; `disagreeing` are the numbers
    of all rows in groups of such rows that have more than one label or answer.
    """

    rows: int
    exact: int
    near: int
    disagreeing: tuple[int, ...]

    def facts(self) -> dict[str, int]:
        """The counts, as a record holds them."""
        return {"exact": self.exact, "near": self.near, "disagreeing": len(self.disagreeing)}


def repeats(data: TextSet, run: Run) -> Repeats:
    """Count rows that repeat one another; case, marks and spaces are left out, and rows without words are passed over.

    Nearly equal are texts that share four fifths of their sequences of three words, as MinHash signatures estimate it
    (`provenance.samples.near`); of a chat set the prompts count. A row counts as nearly equal to all that a chain of
    such pairs leads to. Time and memory grow with the rows, 256 bytes each. Raises OutOfTime.
    """
    words = [" ".join(WORD.findall(text.lower())) for text in data.texts]
    told = np.flatnonzero([bool(one) for one in words])
    if not len(told):
        return Repeats(len(data), 0, 0, ())
    texts = _numbers([words[row] for row in told])
    group = _groups([words[row] for row in told], run)
    if data.answers is None:
        outcomes = data.labels.numpy()[told]
    else:
        outcomes = _numbers([" ".join(WORD.findall(data.answers[row].lower())) for row in told])
    several = _distinct(group, outcomes) > 1
    different = int(texts.max()) + 1
    return Repeats(
        rows=len(data),
        exact=len(told) - different,
        near=different - int(group.max()) - 1,
        disagreeing=tuple(told[several[group]].tolist()),
    )


def told_of(found: Repeats, data: TextSet) -> str | None:
    """What a user should be told of the repeats of a set; None where they are few and agree."""
    if not found.disagreeing and found.exact + found.near < max(1, MANY * found.rows):
        return None
    what = f"of {found.rows} rows {found.exact} have the words of an earlier one, and {found.near} nearly"
    if not found.disagreeing:
        return what
    names = ", ".join(printable(data.ids[row]) for row in found.disagreeing[:NAMED])
    more = ", …" if len(found.disagreeing) > NAMED else ""
    other = "label" if data.answers is None else "answer"
    return f"{what}; groups with more than one {other} hold {len(found.disagreeing)} rows ({names}{more})"


def _numbers(texts: Sequence[str]) -> np.ndarray:
    """A number for each text, the same for equal ones, from 0 without a gap."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(one, len(seen)) for one in texts])


def _distinct(group: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """How many different outcomes each group has."""
    return np.bincount(np.unique(np.stack([group, outcomes]), axis=1)[0])


def _groups(texts: Sequence[str], run: Run) -> np.ndarray:
    """The group of nearly equal texts that each belongs to, numbered without a gap."""
    signatures = np.empty((len(texts), BANDS * EACH), np.uint32)
    for row, text in enumerate(texts):
        if row % CHUNK == 0:
            run.step(row, len(texts), "repeated rows")
        signatures[row] = signature(text)
    near = np.concatenate([_alike(signatures, band) for band in range(BANDS)])
    graph = sparse.coo_matrix((np.ones(len(near), bool), (near[:, 0], near[:, 1])), shape=(len(texts),) * 2)
    return np.asarray(connected_components(graph, directed=False)[1])


def _alike(signatures: np.ndarray, band: int) -> np.ndarray:
    """Pairs [m, 2] of rows that share a band and are nearly equal: each with the first of its bucket, and the last."""
    part = np.ascontiguousarray(signatures[:, band * EACH : (band + 1) * EACH])
    keys = part.view([("", part.dtype)] * EACH).ravel()
    order = np.argsort(keys, kind="stable")
    new = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    before = np.roll(order, 1)
    pairs = np.concatenate([np.stack([one[~new], order[~new]], 1) for one in (first, before)])
    close = [
        (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(1) >= ALIKE
        for part in (pairs[at : at + CHUNK] for at in range(0, len(pairs), CHUNK))
    ]
    return pairs[np.concatenate(close)] if close else pairs
