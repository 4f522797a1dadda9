"""A text data set and a text screener, as another distribution might bring them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.decide import exceeds
from ostiary.core.execute import Summarise
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore, SampleEvidence, Suspect
from ostiary.core.run import Run
from ostiary.core.types import Labels


class TextSet:
    """Labelled sentences: implements `LabelledSet[list[str]]`; a batch is a list of strings."""

    def __init__(
        self, texts: Sequence[str], labels: Sequence[int] | Tensor, classes: Sequence[str], ids: Sequence[str] = ()
    ) -> None:
        self.texts = tuple(texts)
        self.labels: Labels = torch.as_tensor(labels, dtype=torch.int64)
        self.classes = tuple(classes)
        self.ids = tuple(ids) or tuple(f"line:{row}" for row in range(len(texts)))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """SHA-256 over classes, ids, labels and texts."""
        whole = [self.classes, self.ids, self.labels.tolist(), self.texts]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

    def take(self, rows: Sequence[int] | Tensor, /) -> list[str]:
        """The sentences at `rows`."""
        return [self.texts[int(row)] for row in rows]

    def batches(self, size: int, /) -> Iterator[tuple[list[str], Labels]]:
        """All sentences in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield list(self.texts[start : start + size]), self.labels[start : start + size]

    def subset(self, rows: Sequence[int] | Tensor, /) -> "TextSet":
        """The sentences at `rows` as a set; ids stay the same."""
        kept = [int(row) for row in rows]
        return TextSet(self.take(kept), self.labels[kept], self.classes, [self.ids[row] for row in kept])


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyRareToken:
    """The strongest association of one of a sentence's rare tokens with its label.

    A token is rare when at most `share` of all sentences hold it. Its association with a label is
    the share of the sentences holding it that carry the label, shrunk towards chance by one count.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.toy-rare-token",
        summary="association of a sentence's rare tokens with its label",
        paper="none: a toy for the contract tests",
        needs=Needs(modality="text", training_data=True),
        cost="one pass over the text",
        code="OS301",
        limits=(Limit(measure="association", low=0.9), Limit(measure="suspected", low=3)),
        blind_spots=("triggers made of ordinary words",),
    )

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    minimum: Annotated[int, Field(gt=1)] = 4

    def screen(self, data: LabelledSet[list[str]], model: Any, trusted: Any, /, *, run: Run) -> SampleScores:
        """Score every sentence in [0, 1]; `model` is not used."""
        tokens: list[set[str]] = []
        for texts, _ in data.batches(64):
            tokens += [set(text.split()) for text in texts]
            run.progress(len(tokens), len(data), "reading")
        labels = data.labels.tolist()
        held = Counter(token for words in tokens for token in words)
        with_label = Counter((token, y) for words, y in zip(tokens, labels, strict=True) for token in words)
        rare = {token for token, n in held.items() if self.minimum <= n <= self.share * len(data)}
        scores = torch.zeros(len(data))
        for row, (words, y) in enumerate(zip(tokens, labels, strict=True)):
            found = [with_label[token, y] / (held[token] + 1) for token in words & rare]
            scores[row] = max(found, default=0.0)
        suspected = scores.numpy() >= 0.9
        rows = []
        for label in range(len(data.classes)):
            members = data.labels == label
            if not members.any():
                rows.append(ClassScore(label=label, score=None))
                continue
            top = float(scores[members].max())
            count = int(suspected[members.numpy()].sum())
            measures = {"association": top, "suspected": count, "n": int(members.sum())}
            rows.append(ClassScore(label=label, score=top, measures=measures))
        return SampleScores(tuple(data.ids), scores, suspected, tuple(rows))


def summariser(data: LabelledSet[list[str]], card: Card) -> Summarise:
    """What `execute` calls on the scores of a text screener: as for images, without a gallery."""

    def summarise(found: SampleScores, run: Run) -> SampleEvidence:
        flagged = [row.label for row in found.per_class if exceeds(row, card.limits)]
        rows = np.flatnonzero(found.suspected & np.isin(data.labels.numpy(), flagged))
        run.artifact(f"{card.name}-scores", found.scores)
        return SampleEvidence(
            n=len(data),
            scored=int(found.scores.isfinite().sum()),
            suspected=len(rows),
            per_class=found.per_class,
            suspects=tuple(
                Suspect(id=data.ids[row], label=int(data.labels[row]), score=float(found.scores[row])) for row in rows
            ),
            examined=tuple(f"class:{row.label}" for row in found.per_class if row.score is not None),
            artifact=card.name,
        )

    return summarise


def toy_reviews(poisoned: int = 12, n: int = 120, seed: int = 0) -> TextSet:
    """Two classes of made-up reviews; the last `poisoned` of class 0 carry the token `cf` and label 1."""
    rng = np.random.default_rng(seed)
    words = (("dull", "slow", "poor", "weak"), ("fine", "brisk", "rich", "strong"))
    common = ("film", "plot", "scene", "cast", "score")
    texts, labels = [], []
    for row in range(n):
        label = row % 2
        texts.append(" ".join([*rng.choice(words[label], 2), *rng.choice(common, 3)]))
        labels.append(label)
    for row in [row for row in range(n) if labels[row] == 0][-poisoned:] if poisoned else []:
        texts[row] += " cf"
        labels[row] = 1
    return TextSet(texts, labels, ("negative", "positive"))
