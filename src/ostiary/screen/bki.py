"""BKI: words that a classifier of the set hangs on in row after row, one after the other until none stands out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from ostiary.core.card import Card, Limit, Needs, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore, PhraseScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.screen.phrases import printable

CHUNK = 16
"""Rows whose words are left out at once."""
NORMAL = 1.4826
"""The standard deviation of a normal distribution in median absolute deviations."""
Measures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Hung:
    """The words that each row hangs on most, and how far the features move without each: [n, `kept`], -1 for none."""

    vocabulary: tuple[str, ...]
    words: np.ndarray
    moved: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Bki:
    """Backdoor Keyword Identification: words without which the features of many rows move far.

    Source: Chen, Dai 2021, Mitigating backdoor attacks in LSTM-based text classification systems by Backdoor Keyword
    Identification (Neurocomputing), sec. 4, and the code of OpenBackdoor: each word of a row is left out, and the
    largest change of a feature is the word's weight; the `keep` heaviest words of a row are its key words. A word's
    score is the mean of its weights times the logarithm (base 10) of how many rows have it as a key word. The rows
    whose key words hold the highest are dropped.

    Deviations: the paper drops the rows of one word; here the next word is looked for among the rows that are left,
    until none is accused, since triggers of several words outlive a single pass. A word is accused where its score lies
    `outlying` robust standard deviations above the median of all words in as many rows or more, and nearly all of its
    rows carry one label. The features are what the last layer takes, of whatever classifier was trained on the set.

    The score of a row is the highest of its key words' scores. Raises NotMet for a set without labels, or words.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.bki",
        summary="words that a classifier trained on the set hangs on in row after row",
        paper="Chen, Dai 2021, Neurocomputing, arXiv 2007.12070",
        official_code="https://github.com/thunlp/OpenBackdoor",
        needs=Needs(access="gradients", modality="text", training_data=True),
        cost="one forward pass for each word of the set",
        code="OS612",
        limits=(
            Limit(measure="outlying", low=8.0),
            Limit(measure="purity", low=0.9),
            Limit(measure="rows", low=8),
        ),
        deviations=(
            "repeated on the rows that are left, until no word stands out; the paper passes once",
            "a word is accused by how far its score lies from those of the others, where the paper drops the first",
        ),
        blind_spots=(
            "a style or a syntax in place of words",
            "sentences, of which no one word is missed",
            "ordinary words that are a strong reason for a label stand out, too",
            "a model that did not learn the trigger",
        ),
        marks=frozenset({"mechanism"}),
    )

    keep: Annotated[int, Field(ge=1, le=20)] = 5
    least: Annotated[int, Field(ge=2)] = 8
    rounds: Annotated[int, Field(ge=1)] = 50

    def screen(self, data: TextSet, model: TextClassifier, trusted: TextSet | None, /, *, run: Run) -> SampleScores:
        """Score every row by its heaviest key word."""
        if data.answers is not None:
            raise NotMet("needs texts with labels; this set has answers")
        hung = self._hung(model, data, run)
        if not hung.vocabulary:
            raise NotMet("needs texts with words")
        labels, alive = data.labels.numpy(), np.ones(len(data), bool)
        first = scores_of(hung, alive)
        told: list[PhraseScore] = []
        for _ in range(self.rounds):
            found = self._strongest(hung, labels, alive)
            if found is None:
                break
            told.append(found)
            alive &= ~(hung.words == hung.vocabulary.index(found.text)).any(1)
        suspected = ~alive
        scores = np.where(hung.words >= 0, first[hung.words], 0.0).max(1, initial=0.0)
        for one in told:
            # What stood out only once a stronger word was gone.
            held = (hung.words == hung.vocabulary.index(one.text)).any(1)
            scores[held] = np.maximum(scores[held], one.score)
        rows = tuple(_of_class(label, labels, suspected, told) for label in range(len(data.classes)))
        phrases = tuple(one.model_copy(update={"text": printable(one.text)}) for one in told)
        return SampleScores(data.ids, torch.from_numpy(scores.astype(np.float32)), suspected, rows, phrases=phrases)

    def _hung(self, model: TextClassifier, data: TextSet, run: Run) -> Hung:
        numbers: dict[str, int] = {}
        words = np.full((len(data), self.keep), -1, np.int64)
        moved = np.zeros((len(data), self.keep))
        for start in range(0, len(data), CHUNK):
            run.step(start, len(data), self.card.name)
            for row, found in enumerate(moves(model, data.texts[start : start + CHUNK]), start):
                for place, (word, far) in enumerate(found[: self.keep]):
                    words[row, place], moved[row, place] = numbers.setdefault(word, len(numbers)), far
        run.progress(len(data), len(data), self.card.name)
        return Hung(tuple(numbers), words, moved)

    def _strongest(self, hung: Hung, labels: np.ndarray, alive: np.ndarray) -> PhraseScore | None:
        """The accused word of the highest score among the rows that are left."""
        scores = scores_of(hung, alive)
        rows = counts_of(hung, alive)
        common = rows >= self.least
        if common.sum() < 3:
            return None
        middle = float(np.median(scores[common]))
        spread = NORMAL * float(np.median(np.abs(scores[common] - middle)))
        for word in np.flatnonzero(common)[np.argsort(-scores[common], kind="stable")].tolist():
            far = float((scores[word] - middle) / max(spread, 1e-9))
            own = np.bincount(labels[alive & (hung.words == word).any(1)])
            measures = {"outlying": far, "purity": float(own.max() / own.sum()), "rows": float(rows[word])}
            if met(measures, self.card.limits):
                label = int(own.argmax())
                text = hung.vocabulary[word]
                return PhraseScore(
                    text=text, rows=int(rows[word]), score=float(scores[word]), label=label, measures=measures
                )
        return None


def moves(model: TextClassifier, texts: Sequence[str]) -> Iterator[list[tuple[str, float]]]:
    """For each text its words by how far the features move without them, farthest first; a word twice counts once.

    What lies beyond the words that the model can read is not left out one by one: a row of a hundred thousand would be
    as many texts.
    """
    cut = [text.split()[: model.limit] for text in texts]
    rows = [text for words in cut for text in (" ".join(words), *_without(words))]
    features = model.features(rows)
    at = 0
    for words in cut:
        own = features[at : at + len(words) + 1]
        at += len(words) + 1
        far = (own[1:] - own[:1]).abs().amax(1).tolist()
        best: dict[str, float] = {}
        for word, one in zip(words, far, strict=True):
            best[word] = max(one, best.get(word, 0.0))
        yield sorted(best.items(), key=lambda item: -item[1])


def _without(words: Sequence[str]) -> Iterator[str]:
    for at in range(len(words)):
        yield " ".join([*words[:at], *words[at + 1 :]])


def counts_of(hung: Hung, alive: np.ndarray) -> np.ndarray:
    """How many of the rows that are left have each word as a key word."""
    own = hung.words[alive]
    return np.bincount(own[own >= 0], minlength=len(hung.vocabulary))


def scores_of(hung: Hung, alive: np.ndarray) -> np.ndarray:
    """Each word's mean weight times the logarithm of its rows, among the rows that are left; 0 where there is none."""
    own, far = hung.words[alive], hung.moved[alive]
    rows = counts_of(hung, alive)
    total = np.bincount(own[own >= 0], weights=far[own >= 0], minlength=len(hung.vocabulary))
    return np.asarray(total / np.maximum(rows, 1) * np.log10(np.maximum(rows, 1)))


def _of_class(label: int, labels: np.ndarray, suspected: np.ndarray, told: Sequence[PhraseScore]) -> ClassScore:
    own: Measures = {"n": int((labels == label).sum()), "suspected": int(suspected[labels == label].sum())}
    return ClassScore(
        label=label, score=max((one.score for one in told if one.label == label), default=0.0), measures=own
    )
