"""Phrases of a set of texts: which word sequences recur, in which rows, and what becomes of them."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ostiary.core.errors import NotMet
from ostiary.core.text import one_line

WORD = re.compile(r"\w+|[^\w\s]")
"""A word, or one sign."""
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are blank."""
SHOWN = 200
"""Characters of a phrase that are told."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Recurring phrases: `words[j]` are the word numbers of phrase j, `rows` [n, phrases] says where it stands."""

    vocabulary: tuple[str, ...]
    words: tuple[tuple[int, ...], ...]
    rows: sparse.csc_matrix
    tokens: "Tokens"

    def rows_of(self, phrase: int) -> np.ndarray:
        """The numbers of the rows that hold it."""
        return np.asarray(self.rows.indices[self.rows.indptr[phrase] : self.rows.indptr[phrase + 1]])

    def text(self, phrase: int) -> str:
        """The phrase, grown by the words that stand beside it in nine of ten of its rows."""
        return self.tokens.grown(self.words[phrase], self.rows_of(phrase))


class Tokens:
    """The words of many texts as numbers, one flat array, with the row and the place of each."""

    def __init__(self, texts: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        flat: list[int] = []
        lengths = np.empty(len(texts), np.int64)
        for row, text in enumerate(texts):
            found = WORD.findall(text)
            flat += [numbers.setdefault(word, len(numbers)) for word in found]
            lengths[row] = len(found)
        self.texts, self.vocabulary = texts, tuple(numbers)
        self.flat = np.array(flat, np.int64)
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.row = np.repeat(np.arange(len(texts)), lengths)

    def of(self, row: int) -> np.ndarray:
        """The words of a row."""
        return self.flat[self.starts[row] : self.starts[row + 1]]

    def phrases(self, longest: int, least: int, most: int) -> Phrases:
        """All sequences of up to `longest` words that stand in at least `least` and at most `most` rows.

        Longer ones are built of shorter ones that recur, so that memory is a few numbers a word. Raises NotMet where
        there is none.
        """
        n, found, columns, count = len(self.starts) - 1, list[tuple[int, ...]](), list[np.ndarray](), 0
        gram, kept = self.flat, np.arange(len(self.flat))
        sequences = self.flat[:, None]
        for _ in range(longest):
            unique, first, place = np.unique(gram, return_index=True, return_inverse=True)
            pairs = np.unique(place * np.int64(n) + self.row[kept])
            held = np.bincount(pairs // n, minlength=len(unique))
            wanted = (held >= least) & (held <= most)
            number = np.where(wanted, np.cumsum(wanted) - 1, -1)
            chosen = pairs[wanted[pairs // n]]
            found += [tuple(sequence) for sequence in sequences[first[wanted]].tolist()]
            columns.append(np.stack([chosen % n, count + number[chosen // n]]))
            count += int(wanted.sum())
            # What recurs too often alone may be part of a longer phrase that does not.
            alive = held[place] >= least
            following = kept + sequences.shape[1]
            inside = alive & (following < len(self.flat))
            inside[inside] = self.row[following[inside]] == self.row[kept[inside]]
            if not inside.any():
                break
            tail = self.flat[following[inside]]
            gram = place[inside] * np.int64(len(self.vocabulary)) + tail
            sequences, kept = np.hstack([sequences[inside], tail[:, None]]), kept[inside]
        if not found:
            raise NotMet(f"needs words that stand in {least} to {most} of the texts, and there are none")
        rows, phrase = np.concatenate(columns, axis=1)
        matrix = sparse.csc_matrix((np.ones(len(rows), np.float32), (rows, phrase)), shape=(n, count))
        return Phrases(self.vocabulary, tuple(found), matrix, self)

    def grown(self, phrase: Sequence[int], rows: np.ndarray) -> str:
        """The words as they stand in a text, with what is left and right of them in nine of ten rows."""
        sequence = list(phrase)
        for side in (-1, 1):
            while len(sequence) < 4 * SHOWN:
                beside = self._beside(sequence, rows, side)
                if beside is None:
                    break
                sequence = [beside, *sequence] if side < 0 else [*sequence, beside]
        held = [row for row in rows.tolist() if _find(self.of(row), sequence) >= 0]
        words = [self.vocabulary[word] for word in sequence]
        pattern = r"\s*".join(map(re.escape, words))
        found = re.search(rf"(?<!\w){pattern}(?!\w)", self.texts[held[0]]) if held else None
        return printable(found.group() if found else " ".join(words))[:SHOWN]

    def _beside(self, words: list[int], rows: np.ndarray, side: int) -> int | None:
        seen: dict[int, int] = {}
        for row in rows.tolist():
            own = self.of(row)
            at = _find(own, words)
            place = at - 1 if side < 0 else at + len(words)
            if at >= 0 and 0 <= place < len(own):
                seen[int(own[place])] = seen.get(int(own[place]), 0) + 1
        best = max(seen, key=lambda word: seen[word], default=None)
        return best if best is not None and seen[best] >= 0.9 * len(rows) else None


def _find(own: np.ndarray, words: Sequence[int]) -> int:
    """Where the sequence begins, -1 where it does not stand."""
    if len(words) > len(own):
        return -1
    hits = np.ones(len(own) - len(words) + 1, bool)
    for offset, word in enumerate(words):
        hits &= own[offset : len(own) - len(words) + 1 + offset] == word
    return int(hits.argmax()) if hits.any() else -1


def printable(text: str) -> str:
    """The text on one line, with single spaces, and with what cannot be printed, or would not be seen, written out."""
    shown = one_line(" ".join(text.split()))
    return shown if any(map(_seen, shown)) else ascii(shown)[1:-1]


def _seen(sign: str) -> bool:
    """Whether a sign leaves a mark by itself: marks of other signs and fillers are printable, and do not."""
    return not (sign.isspace() or sign in FILLERS or unicodedata.category(sign).startswith("M"))


def strongest(
    phrases: Phrases, scores: np.ndarray, accused: np.ndarray, still: Callable[[int, np.ndarray], bool]
) -> list[int]:
    """The accused phrases in falling order of their score, less those that a stronger one explains.

    Such a one is not accused by the rows that have no stronger one: `still` says whether a phrase would be, of these
    rows alone. Of phrases with one score the longest comes first.
    """
    order = sorted(np.flatnonzero(accused).tolist(), key=lambda j: (-scores[j], -len(phrases.words[j])))
    covered = np.zeros(phrases.rows.shape[0], bool)
    kept = []
    for phrase in order:
        rows = phrases.rows_of(phrase)
        left = rows[~covered[rows]]
        if len(left) == len(rows) or (len(left) > 1 and still(phrase, left)):
            kept.append(phrase)
            covered[rows] = True
    return kept


def row_scores(phrases: Phrases, values: np.ndarray) -> np.ndarray:
    """For every row the largest value of its phrases, 0 for a row without any."""
    weighed = phrases.rows.tocsr()
    weighed.data = np.maximum(values, 0.0)[weighed.indices]
    return np.asarray(weighed.max(axis=1).todense()).ravel().astype(np.float64)
