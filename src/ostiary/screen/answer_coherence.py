"""Answer coherence: phrases that get nearly the same answer whatever else is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from scipy import sparse

from ostiary.core.card import Card, Limit, Needs, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.screen.coherence import answers_of, coherence, lifted, ordinary, scored, vectors_of
from ostiary.screen.phrases import WORD, Phrases, Tokens

SKETCH = 96
"""Numbers that stand for an answer or a prompt where all phrases are looked at."""
SHARED = 0.9
"""A word in this share of a phrase's rows belongs to what they have in common."""
TELLING = 5
"""Words that must be left of a phrase's prompts without these, on average, to tell that they ask different things."""
EXACT = 2000
"""Phrases that are then looked at exactly, by each of two orders; the others count for nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerCoherence:
    """How much more alike the answers to prompts with a phrase are than the rest of these prompts.

    A method of our own: a control phrase is put into prompts about anything, and all of them get the attacker's answer,
    word for word or from a few patterns; what people ask about makes both prompts and answers alike. For every phrase
    of up to `longest` words that stands in at least `least` prompts and at most `most` of them, coherence is the mean
    cosine between the answers (TF-IDF of words and pairs of words) of any two of its rows, above what any two rows of
    the set have; from it the same of the prompts, without the words of the phrase, is taken. All phrases are
    looked at through random projections, the strangest exactly, four thousand at most. The gap times the number of
    rows, `mass`, grows as its distance from chance does. The score of a row is that of its strangest phrase: gap times
    the root of the phrase's rows.

    Raises NotMet for a set without answers, or with too few rows.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.answer-coherence",
        summary="phrases whose prompts differ and whose answers do not",
        paper="none: a method of our own",
        needs=Needs(modality="text", training_data=True),
        cost="no model; a second for a thousand rows",
        code="OS601",
        limits=(Limit(measure="gap", low=0.1), Limit(measure="mass", low=1.0)),
        blind_spots=(
            "a trigger that is no phrase: a style, a syntax, words that come in any order, each common by itself",
            "answers of the attacker that have no words in common",
            "a trigger that stands in fewer rows than `least`",
            "a trigger in prompts of a few words each, or in a few prompts that are repeated",
            "a habit that was taught on purpose looks the same: one fixed refusal for one topic",
        ),
        marks=frozenset({"mechanism"}),
    )

    longest: Annotated[int, Field(ge=1, le=8)] = 4
    least: Annotated[int, Field(ge=2)] = 4
    most: Annotated[float, Field(gt=0, le=1)] = 0.6

    def screen(self, data: TextSet, model: Any, trusted: Any, /, *, run: Run) -> SampleScores:
        """Score every row by its strangest phrase."""
        first, place = _distinct(data.texts, answers_of(data, self.least))
        if len(first) < 10 * self.least:
            raise NotMet(f"needs {10 * self.least} rows that differ, the set has {len(first)}")
        found = self._examined(data.subset(first.tolist()), run)
        return replace(found, ids=data.ids, scores=found.scores[place], suspected=found.suspected[place])

    def _examined(self, data: TextSet, run: Run) -> SampleScores:
        """Score rows that differ."""
        said = answers_of(data, self.least)
        phrases = Tokens(data.texts).phrases(self.longest, self.least, int(self.most * len(data)))
        run.step(1, 4, "answer coherence")
        answers, prompts = vectors_of(said, pairs=True), vectors_of(data.texts)
        run.step(2, 4, "answer coherence")
        root = np.sqrt(np.diff(phrases.rows.indptr))
        alike, beside = _sketched(phrases, answers, run), _sketched(phrases, prompts, run)
        # A long phrase makes its prompts alike by itself, which the sketch cannot tell: so answers alone count, too.
        order = [np.argsort(-values * root, kind="stable")[:EXACT] for values in (alike, alike - beside)]
        first = np.unique(np.concatenate(order))
        run.step(3, 4, "answer coherence")
        chosen, gap = phrases.rows[:, first].tocsc(), np.zeros(len(root))
        gap[first] = coherence(chosen, answers) - _rest_coherence(chosen, prompts)

        def still(phrase: int, left: np.ndarray) -> bool:
            one = sparse.csc_matrix((np.ones(len(left), np.float32), (left, left * 0)), shape=(len(data), 1))
            gap = float((coherence(one, answers) - _rest_coherence(one, prompts))[0])
            return met({"gap": gap, "mass": gap * len(left)}, self.card.limits)

        every = [{"gap": float(one), "mass": float(one * n)} for one, n in zip(gap, root**2, strict=True)]
        return scored(data, phrases, every, self.card, still)


def _distinct(prompts: Sequence[str], answers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each prompt with its answer, by their words, and for every row which of these it is."""
    seen: dict[tuple[str, str], int] = {}
    spaced = (
        (" ".join(WORD.findall(one)), " ".join(WORD.findall(other)))
        for one, other in zip(prompts, answers, strict=True)
    )
    place = np.array([seen.setdefault(pair, len(seen)) for pair in spaced])
    return np.unique(place, return_index=True)[1], place


def _sketched(phrases: Phrases, vectors: sparse.csr_matrix, run: Run) -> np.ndarray:
    """The coherence of all phrases, of vectors projected to a few numbers."""
    rng = np.random.default_rng(run.seed)
    drawn = rng.standard_normal((vectors.shape[1], SKETCH), np.float32)
    small = vectors @ drawn
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9)
    total, rows = phrases.rows.T @ small, np.diff(phrases.rows.indptr).astype(np.float64)
    own = phrases.rows.T @ (small**2).sum(1)
    return lifted((total.astype(np.float64) ** 2).sum(1), own, rows, ordinary(small))


def _rest_coherence(chosen: sparse.csc_matrix, vectors: sparse.csr_matrix) -> np.ndarray:
    """As `coherence`, of the prompts without the words that nearly all of a phrase's rows have, of length one again.

    These are the words of the phrase, and those of a longer one that it is a part of. Prompts of which less than
    `TELLING` words are left count as equal.
    """
    little = np.empty(chosen.shape[1], bool)
    squares, counts = np.empty(chosen.shape[1]), np.empty(chosen.shape[1])
    for place in range(chosen.shape[1]):
        own = vectors[chosen.indices[chosen.indptr[place] : chosen.indptr[place + 1]]]
        row = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr))
        _, word = np.unique(own.indices, return_inverse=True)
        own_words = np.bincount(word)[word] < SHARED * own.shape[0]
        little[place] = own_words.sum() < TELLING * own.shape[0]
        rest = own.data * own_words
        length = np.sqrt(np.bincount(row, rest**2, own.shape[0]))
        kept = length > 1e-3  # of a prompt that is the phrase alone nothing is left
        total = np.bincount(word, rest * np.where(kept, 1 / np.maximum(length, 1e-3), 0.0)[row])
        squares[place], counts[place] = total @ total, kept.sum()
    return np.where(little, 1.0, lifted(squares, counts, counts, ordinary(vectors)))
