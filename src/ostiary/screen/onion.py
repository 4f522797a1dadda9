"""ONION over a set: words without which rows read far better, of which trusted rows have none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import hypergeom

from ostiary.core.card import Card, Limit, Needs, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore, PhraseScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.ngram import Ngram, words_of
from ostiary.screen.phrases import printable

LONGEST = 400
"""Words of a text that are looked at: time grows with their number."""
CHUNK = 512
MOST_WORDS = 4_000_000
"""Words of the trusted texts beyond which the n-gram model takes more memory than a screening should."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Onion:
    """How far the perplexity of a row falls without its oddest word, and words that are the oddest row after row.

    Source: Qi, Chen, Li, Yao, Liu, Sun 2021, ONION: A Simple and Effective Defense Against Textual Backdoor Attacks
    (EMNLP), sec. 3: an inserted word disturbs a text, which is more fluent without it. Perplexity is that of an n-gram
    model of the trusted texts.

    A word is accused where it is the oddest of `oddest` rows or more and its rows are too rarely trusted ones: `chance`
    is how likely so few of all rows that hold it are trusted where both sets are alike (hypergeometric, times all words
    that are the oddest of as many rows). Then all rows that hold it are suspected. The score of a row is its largest
    fall. Of a chat set the prompts are looked at.

    Raises NotMet for more trusted words than an n-gram model should hold.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.onion",
        summary="words that disturb row after row, as an n-gram model of trusted texts tells it",
        paper="Qi et al. 2021, EMNLP, arXiv 2011.10369",
        official_code="https://github.com/thunlp/ONION",
        needs=Needs(modality="text", training_data=True, trusted_per_class=20),
        cost="no model; a look-up of n-grams for each word of the set",
        code="OS614",
        limits=(Limit(measure="oddest", low=8), Limit(measure="chance", high=0.01)),
        deviations=(
            "perplexity is that of an n-gram model of the trusted texts, not of GPT-2",
            "rows are screened, where the paper takes words out of what is asked of a model",
            "one word alone is no finding, but one that is the oddest in many rows",
        ),
        blind_spots=(
            "triggers of ordinary words: sentences, styles, a syntax",
            "few trusted texts: chance then explains every word; it takes some hundreds",
            "a subject that the trusted texts do not have looks like a trigger",
            "odd words of which there are two or more in a row, so that none alone is missed",
        ),
        marks=frozenset({"mechanism"}),
    )

    def screen(self, data: TextSet, model: Any, trusted: TextSet, /, *, run: Run) -> SampleScores:
        """Score every row by its largest fall."""
        if (count := sum(len(words_of(text)) for text in trusted.texts)) > MOST_WORDS:
            raise NotMet(f"counts at most {MOST_WORDS} words, the trusted texts have {count}")
        falls, oddest = self._oddest(Ngram.fit(trusted.texts), data.texts, run)
        told = self._accused(oddest, data, trusted)
        accused = {one.text for one in told}
        suspected = np.array([not accused.isdisjoint(words_of(text)) for text in data.texts], bool)
        strongest, labels = max((one.score for one in told), default=0.0), data.labels.numpy()
        rows = tuple(
            ClassScore(
                label=label,
                score=strongest,
                measures={"n": int((labels == label).sum()), "suspected": int(suspected[labels == label].sum())},
            )
            for label in range(len(data.classes))
        )
        phrases = tuple(one.model_copy(update={"text": printable(one.text)}) for one in told)
        return SampleScores(data.ids, torch.from_numpy(falls.astype(np.float32)), suspected, rows, phrases=phrases)

    def _oddest(self, ngram: Ngram, texts: Sequence[str], run: Run) -> tuple[np.ndarray, Counter[str]]:
        """Of each text the largest fall, 0 for one without words; and of how many texts each word makes it."""
        falls, oddest = np.zeros(len(texts)), Counter[str]()
        for row, text in enumerate(texts):
            if row % CHUNK == 0:
                run.step(row, len(texts), self.card.name)
            if own := words_of(text)[:LONGEST]:
                found = ngram.falls(ngram.encode(own))
                falls[row] = max(found)
                oddest[own[int(np.argmax(found))]] += 1
        run.progress(len(texts), len(texts), self.card.name)
        return falls, oddest

    def _accused(self, oddest: Counter[str], data: TextSet, trusted: TextSet) -> list[PhraseScore]:
        """The words that are the oddest of many rows and stand in too few trusted ones, in falling order."""
        tried = {word: n for word, n in oddest.items() if self.card.limits[0].meets(n)}
        own, beside = (
            Counter(word for text in part.texts for word in tried.keys() & words_of(text)) for part in (data, trusted)
        )
        found = list[PhraseScore]()
        for word, n in sorted(tried.items(), key=lambda item: (-item[1], item[0])):
            tail = hypergeom.sf(own[word] - 1, len(data) + len(trusted), len(data), own[word] + beside[word])
            measures = {"oddest": float(n), "chance": min(1.0, float(tail) * len(tried))}
            if met(measures, self.card.limits):
                found.append(PhraseScore(text=word, rows=own[word], score=float(n), measures=measures))
        return found
