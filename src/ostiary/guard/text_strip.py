"""STRIP on texts: put the words of trusted texts for half of a text's own; a prediction that stays is suspicious."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Scores
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.guard.fitted import Fitted, Takes
from ostiary.models.text_classifier import TextClassifier

CARD = Card(
    id="text.guard.strip",
    summary="puts words of trusted texts for half of a text's own and flags predictions that stay",
    paper="Gao et al. 2021, IEEE TDSC, arXiv 1911.10312",
    official_code="https://github.com/garrisongys/STRIP",
    needs=Needs(access="probabilities", modality="text", trusted_per_class=20),
    cost="as many passes per text as there are copies (20)",
    code="OS408",
    deviations=(
        "the words of a copy are drawn from one trusted text by their TF-IDF, not the highest of it",
        "which words are replaced follows from the text itself, so that no score depends on the rest of a batch",
        "the limit is a quantile of trusted texts, without the normal distribution that the paper fits",
    ),
    blind_spots=(
        "half of the copies lose a trigger of one word, nearly all lose one of several that fire together",
        "texts that the model is sure of, whatever half of their words is put out, are flagged, too; texts of a word",
        "models in which a trigger weighs little more than other words",
        "small classifiers trained from nothing: AUROC 0.54 and 0.55 on rare words (an encoder that was tuned: 0.82)",
        "who has the guard's file knows which words will be replaced, and can choose the place of a trigger",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedTextStrip(Fitted):
    """A fitted STRIP: the words of the texts that copies take theirs from, and the weights of all these [w]."""

    card: ClassVar[Card] = CARD
    takes: ClassVar[Takes] = "texts with labels"
    tensors: ClassVar[tuple[str, ...]] = ("weights",)
    texts: ClassVar[tuple[str, ...]] = ("overlays",)
    scored_at_once: ClassVar[int] = 64

    weights: Tensor
    overlays: Any  # list[list[str]], once it is checked: a file may hold anything
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def __post_init__(self) -> None:
        words = self.overlays
        fine = isinstance(words, list) and words and all(isinstance(one, list) and one for one in words)
        if not fine or not all(isinstance(word, str) for one in words for word in one):
            raise ValueError("no lists of words")  # a FormatError where a file is read
        weights = self.weights
        if weights.shape != (sum(map(len, words)),) or weights.dtype != torch.float64:
            raise ValueError("not a weight for each of the words")
        if not bool((weights.isfinite() & (weights > 0)).all()):
            raise ValueError("weights by which no word can be drawn")

    def score(self, model: TextClassifier, texts: Sequence[str], /) -> Scores:
        """Minus the mean entropy in bits of each text's copies; in [-log2 k, 0]."""
        scores = [torch.empty(0)]
        for start in range(0, len(texts), self.scored_at_once):
            part = texts[start : start + self.scored_at_once]
            p = model.predict([copy for text in part for copy in self.copies(text, model.limit)]).float()
            entropy = -(p * p.clamp(min=1e-12).log2()).sum(1)
            # Copies are input-major: those of one text stand together.
            scores.append(-entropy.view(len(part), len(self.overlays)).mean(1).cpu())
        return torch.cat(scores)

    def copies(self, text: str, most: int) -> list[str]:
        """A copy of the text for each overlay, with words of that in half of the places; `most` words are read."""
        own = text.split()[:most]
        seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        rng = np.random.default_rng(list(seed))
        shares = self.weights.split([len(words) for words in self.overlays])
        made = []
        for words, share in zip(self.overlays, shares, strict=True):
            places = rng.permutation(len(own))[: len(own) // 2]
            drawn = rng.choice(len(words), size=len(places), p=(share / share.sum()).numpy())
            copy = list(own)
            for place, word in zip(places.tolist(), drawn.tolist(), strict=True):
                copy[place] = words[word]
            made.append(" ".join(copy))
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class TextStrip:
    """Mean entropy of the predictions of a text half of whose words are others'; low entropy is suspicious.

    Source: Gao, Kim, Doan, Zhang, Zhang, Nepal, Ranasinghe, Kim 2021, Design and Evaluation of a Multi-Domain Trojan
    Detection Method on Deep Neural Networks (IEEE TDSC; STRIP-ViTA), on texts: in each of N copies half of the words
    are replaced by words of a text that is trusted, those that TF-IDF holds to matter first. The score here is minus
    the mean entropy.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedTextStrip

    copies: Annotated[int, Field(gt=0, le=1000)] = 20
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: TextClassifier, trusted: TextSet, /, *, run: Run) -> FittedTextStrip:
        """Set the limit on one third of the trusted texts; a third lends its words, the last is only measured.

        Raises NotMet where the trusted texts have no words.
        """
        parts = stratified_rows(trusted.labels, (0.34, 0.33, 0.33), run.seed)
        over, limit, check = (trusted.subset(rows) for rows in parts)
        weighed = tf_idf([text.split()[: model.limit] for text in over.texts])
        if not weighed:
            raise NotMet("needs trusted texts with words")
        drawn = torch.randint(len(weighed), (self.copies,), generator=run.generator("overlays")).tolist()
        overlays = [list(weighed[at]) for at in drawn]
        weights = torch.tensor([value for at in drawn for value in weighed[at].values()], dtype=torch.float64)
        fitted = FittedTextStrip(weights, overlays, 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted


def tf_idf(texts: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Of each text that has words, these and their TF-IDF among all texts, smoothed so that none is 0."""
    held = Counter(word for words in texts for word in set(words))
    idf = {word: math.log((1 + len(texts)) / (1 + rows)) + 1 for word, rows in held.items()}
    return [{word: count * idf[word] for word, count in Counter(words).items()} for words in texts if words]
