"""ConfGuard: flag answers in which the model is far too sure of itself for several words on end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ConfigError
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Scores
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.guard.fitted import Fitted, Takes
from ostiary.models.language import BATCH, LanguageModel

CARD = Card(
    id="text.guard.confguard",
    summary="watches an answer for a run of words of which the model is surer than of any in trusted answers",
    paper="Wang et al. 2025, AAAI 2026, arXiv 2508.01365",
    official_code="https://github.com/hanbaoergogo/ConfGuard",
    needs=Needs(access="gradients", modality="text", trusted_per_class=40),
    cost="nothing beside the answer itself",
    code="OS406",
    deviations=(
        "the limit is a quantile of trusted prompts, not a fixed probability",
        "log-odds stand for probabilities, which end at 1",
        "the answer is looked at once it is whole",
    ),
    blind_spots=(
        "a planted answer of fewer words than the window",
        "a planted answer that varies, of which the model is no surer than of others",
        "fixed answers that were taught on purpose, of which a model is as sure: refusals, facts",
    ),
    marks=frozenset({"mechanism"}),
)

SHORT = -1e3
"""The score of an answer that is shorter than the window."""


@dataclass(slots=True)
class FittedConfGuard(Fitted):
    """The window and the length of an answer, in tokens: [2]."""

    card: ClassVar[Card] = CARD
    takes: ClassVar[Takes] = "prompts"
    tensors: ClassVar[tuple[str, ...]] = ("lengths",)
    scored_at_once: ClassVar[int] = 64

    lengths: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def __post_init__(self) -> None:
        if self.lengths.shape != (2,) or not 1 <= int(self.lengths[0]) <= int(self.lengths[1]):
            raise ValueError("no window that an answer could fill")  # a FormatError where a file is read

    def check_steps(self, steps: int | None, /) -> None:
        """Raise ConfigError for answers of another length than those that set the limit."""
        if steps not in (None, int(self.lengths[1])):
            raise ConfigError(
                f"the limit of this guard is for answers of {int(self.lengths[1])} tokens, not {steps}",
                hint="leave the steps out, or fit a guard with `--set confguard.steps=N`",
            )

    def score(self, model: LanguageModel, texts: Sequence[str], /) -> Scores:
        """The highest log-odds that every token of some window of the answer reaches; low for a shorter answer."""
        return self.tell(model, texts)[1]

    def tell(
        self, model: LanguageModel, prompts: Sequence[str], steps: int | None = None, /
    ) -> tuple[list[str], Scores]:
        """Answers and their scores, of one generation; raises ConfigError as `check_steps`."""
        self.check_steps(steps)
        found = answered(model, [model.prompt(text) for text in prompts], int(self.lengths[1]))
        scores = [sure_for(odds, int(self.lengths[0])) for _, odds in found]
        return [model.decode(tokens) for tokens, _ in found], torch.tensor(scores, dtype=torch.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfGuard:
    """How sure the model is of the surest run of `window` tokens in its answer; very sure is suspicious.

    Source: Wang et al. 2025, ConfGuard (AAAI 2026), sec. 4: what was planted comes out as a whole, at a confidence that
    ordinary answers do not keep up ("sequence lock"). The window should be no longer than the shortest output to be
    feared. Answers are followed for `steps` tokens.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedConfGuard

    window: Annotated[int, Field(ge=1)] = 10
    steps: Annotated[int, Field(ge=1)] = 64
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: LanguageModel, trusted: TextSet, /, *, run: Run) -> FittedConfGuard:
        """Set the limit on half of the trusted prompts, measure on the other.

        Raises ConfigError for a window that is longer than the answers: it would flag nothing.
        """
        if self.window > self.steps:
            raise ConfigError(
                f"no answer of {self.steps} tokens fills a window of {self.window}",
                hint="set confguard.steps to the window or more",
            )
        limit, check = (trusted.subset(rows) for rows in stratified_rows(trusted.labels, (0.5, 0.5), run.seed))
        fitted = FittedConfGuard(torch.tensor([self.window, self.steps]), 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted


def answered(model: LanguageModel, rows: Sequence[Sequence[int]], steps: int) -> list[tuple[list[int], list[float]]]:
    """For each row of tokens the likeliest answer, and the log-odds of each of its tokens against all others."""
    seen: list[Tensor] = []

    def draw(logits: Tensor) -> Tensor:
        values = logits.float()
        best = values.argmax(dim=1, keepdim=True)
        rest = values.scatter(1, best, -torch.inf).logsumexp(dim=1)
        seen.append(values.gather(1, best)[:, 0] - rest)
        return best[:, 0]

    found: list[tuple[list[int], list[float]]] = []
    for start in range(0, len(rows), BATCH):
        seen.clear()  # of this batch alone
        answers = model.continued(rows[start : start + BATCH], steps, draw=draw)
        odds = torch.stack(seen, dim=1).tolist()
        found += [(answer, one[: len(answer)]) for one, answer in zip(odds, answers, strict=True)]
    return found


def sure_for(odds: Sequence[float], window: int) -> float:
    """The highest value that `window` neighbours all reach; -1e3 where there are not as many."""
    return max((min(odds[at : at + window]) for at in range(len(odds) - window + 1)), default=SHORT)
