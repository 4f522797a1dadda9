"""ONION as a guard: flag a text that reads far better without one of its words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

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
from ostiary.models.ngram import Ngram, words_of
from ostiary.models.text_classifier import TextClassifier

MOST_WORDS = 4_000_000
"""Words of the trusted texts beyond which the n-gram model takes more memory than a guard should."""

CARD = Card(
    id="text.guard.onion",
    summary="flags texts whose perplexity falls far without one of their words",
    paper="Qi et al. 2021, EMNLP, arXiv 2011.10369",
    official_code="https://github.com/thunlp/ONION",
    needs=Needs(access="none", modality="text", trusted_per_class=20),
    cost="a look-up of n-grams for each word; the model is not asked",
    code="OS410",
    deviations=(
        "perplexity is that of an n-gram model of the trusted texts, not of GPT-2",
        "the text is flagged, where the paper takes the words out and asks the model again",
        "the limit is a quantile of trusted texts",
    ),
    blind_spots=(
        "triggers of ordinary words: sentences, styles, a syntax",
        "few trusted texts: words that these have not are as odd as a trigger",
        "odd words of which there are two or more, so that none alone is missed",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedOnion(Fitted):
    """The words of the trusted texts, and these texts as numbers [n] as an `Ngram` is made from them."""

    card: ClassVar[Card] = CARD
    takes: ClassVar[Takes] = "texts with labels"
    tensors: ClassVar[tuple[str, ...]] = ("corpus",)
    texts: ClassVar[tuple[str, ...]] = ("vocabulary",)

    corpus: Tensor
    vocabulary: Any  # list[str], once it is checked: a file may hold anything
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None
    ngram: Ngram = field(init=False, repr=False)

    def __post_init__(self) -> None:
        words = self.vocabulary
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("no list of words")  # a FormatError where a file is read
        if self.corpus.dtype != torch.int32 or self.corpus.numel() > MOST_WORDS:
            raise ValueError(f"not the numbers of at most {MOST_WORDS} words")
        self.ngram = Ngram(words, self.corpus.numpy())

    def score(self, model: TextClassifier, texts: Sequence[str], /) -> Scores:
        """The largest fall of perplexity without a word; 0 for a text without words."""
        rows = (self.ngram.encode(words_of(text)[: model.limit]) for text in texts)
        return torch.tensor([max(self.ngram.falls(row), default=0.0) for row in rows], dtype=torch.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Onion:
    """The largest fall of a text's perplexity when one of its words is left out; a large one is suspicious.

    Source: Qi, Chen, Li, Yao, Liu, Sun 2021, ONION: A Simple and Effective Defense Against Textual Backdoor Attacks
    (EMNLP), sec. 3: an inserted word disturbs the text, which is more fluent without it.

    Raises NotMet for more words than an n-gram model should hold.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedOnion

    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: TextClassifier, trusted: TextSet, /, *, run: Run) -> FittedOnion:
        """Count n-grams in half of the trusted texts, set the limit on a quarter, measure on the last."""
        parts = stratified_rows(trusted.labels, (0.5, 0.25, 0.25), run.seed)
        own, limit, check = (trusted.subset(rows) for rows in parts)
        ngram = Ngram.fit(own.texts)
        if len(ngram.corpus) > MOST_WORDS:
            raise NotMet(f"counts at most {MOST_WORDS} words, half of the trusted texts has {len(ngram.corpus)}")
        fitted = FittedOnion(torch.from_numpy(ngram.corpus), list(ngram.vocabulary), 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted
