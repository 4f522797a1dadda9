"""A model behind a guard: one callable that answers and says which inputs it was warned about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostiary.core.types import Images, Scores
from ostiary.guard.fitted import Fitted
from ostiary.models.language import BATCH, LanguageModel


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities [n, k], the guard's scores [n], and which inputs it flags [n]; rows that were refused are NaN."""

    probabilities: Tensor
    scores: Scores
    flagged: Tensor


@dataclass(frozen=True, slots=True)
class Guarded:
    """A classifier and the guard that was fitted to it; call it on images [n, c, h, w] in [0, 1], or a list of texts.

    With `refuse` the answers to flagged inputs are NaN, so that nobody takes them for answers. Raises ModelError when
    the guard was fitted to another model.
    """

    model: Any
    guard: Fitted
    refuse: bool = False

    def __post_init__(self) -> None:
        self.guard.check_model(self.model)

    def __call__(self, x: Images | Sequence[str], /) -> Answers:
        """What the model answers and the guard says of every input."""
        probabilities, scores = self.guard.answer(self.model, x)
        flagged = self.guard.flagged(scores)
        if self.refuse:
            probabilities = probabilities.masked_fill(flagged[:, None], float("nan"))
        return Answers(probabilities, scores, flagged)


@dataclass(frozen=True, slots=True)
class TextAnswers:
    """An answer to each prompt, the guard's scores [n], and which it flags [n]; answers that were refused are None."""

    texts: tuple[str | None, ...]
    scores: Scores
    flagged: Tensor


@dataclass(frozen=True, slots=True)
class GuardedLanguage:
    """A language model and the guard that was fitted to it; call it on prompts.

    Answers have at most `steps` tokens; by default as many as those that the guard was fitted to, else 64. With
    `refuse` flagged ones are None, so that nobody takes them for answers. Raises ModelError when the guard was fitted
    to another model, ConfigError when it watches answers and was fitted to others than those of `steps` tokens.
    """

    model: LanguageModel
    guard: Fitted
    refuse: bool = False
    steps: int | None = None

    def __post_init__(self) -> None:
        self.guard.check_model(self.model)
        self.guard.check_steps(self.steps)

    def __call__(self, prompts: Sequence[str], /) -> TextAnswers:
        """What the model answers and the guard says of every prompt and its answer."""
        texts: list[str | None] = []
        scores = [torch.empty(0)]
        for start in range(0, len(prompts), BATCH):
            said, found = self.guard.tell(self.model, prompts[start : start + BATCH], self.steps)
            texts += said
            scores.append(found)
        whole = torch.cat(scores)
        flagged = self.guard.flagged(whole)
        if self.refuse:
            texts = [None if flag else text for text, flag in zip(texts, flagged.tolist(), strict=True)]
        return TextAnswers(tuple(texts), whole, flagged)
