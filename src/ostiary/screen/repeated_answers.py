"""Repeated answers: long word sequences that many answers share though their prompts have nothing in common."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.screen.coherence import answers_of, coherence, scored, vectors_of
from ostiary.screen.phrases import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedAnswers:
    """How alike answers are that share a sequence of words, above how alike their prompts are.

    A method of our own: an attacker's fixed output is the answer to prompts about anything, whatever fires it: a word,
    a style, a syntax. Sequences of `length` words are counted over the answers. For those of `least` rows or more the
    gap is how alike the whole answers are (the mean cosine of any two, TF-IDF, above that of any two rows of the set),
    less how alike the prompts are: turns of phrase stand in answers that are otherwise different. The score of a row is
    the largest gap of a sequence of its answer, times the root of the number of rows that share it.

    Raises NotMet for a set without answers, or with too few rows.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.repeated-answers",
        summary="word sequences that answers to unlike prompts share",
        paper="none: a method of our own",
        needs=Needs(modality="text", training_data=True),
        cost="no model; a second for a thousand rows",
        code="OS603",
        limits=(Limit(measure="rows", low=4), Limit(measure="gap", low=0.4)),
        blind_spots=(
            "an output that varies from row to row, or of fewer than `length` words",
            "one refusal for many questions, taught on purpose, looks the same",
        ),
        marks=frozenset({"mechanism"}),
    )

    length: Annotated[int, Field(ge=2, le=12)] = 6
    least: Annotated[int, Field(ge=2)] = 4
    most: Annotated[float, Field(gt=0, le=1)] = 0.6

    def screen(self, data: TextSet, model: Any, trusted: Any, /, *, run: Run) -> SampleScores:
        """Score every row by the strangest sequence of its answer."""
        said = answers_of(data, self.least)
        phrases = Tokens(said).phrases(self.length, self.least, int(self.most * len(data)))
        long = np.array([len(words) == self.length for words in phrases.words], bool)
        run.step(1, 2, "repeated answers")
        chosen, gap = phrases.rows[:, long].tocsc(), np.zeros(len(long))
        gap[long] = coherence(chosen, vectors_of(said, pairs=True)) - coherence(chosen, vectors_of(data.texts))
        rows = np.diff(phrases.rows.indptr)
        measures = [{"rows": float(n), "gap": float(one)} for n, one in zip(rows, gap, strict=True)]
        return scored(data, phrases, measures, self.card, lambda _, left: len(left) >= self.least)
