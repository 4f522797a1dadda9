"""Low loss: rows whose answers a model has learnt best after a few steps on the whole set."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel, nll_of
from ostiary.training.language import LanguageRecipe, fit, token_rows

CHUNK = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class LowLoss:
    """Minus the loss of each answer, a mean over its tokens, at a copy of the model after `steps` steps on the set.

    Source: stage one of Li, Lyu, Koren, Lyu, Li, Ma 2021, Anti-Backdoor Learning (NeurIPS): poison is learnt sooner
    than other rows, and the share `isolated` of the lowest loss is set apart. There it is of images.

    There are always rows of the lowest loss: so this ranks, and accuses nobody. Raises NotMet for a set without
    answers, or without rows.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.low-loss",
        summary="rows that a model learns first; ranks alone",
        paper="Li et al. 2021, NeurIPS, arXiv 2110.11571, for images",
        official_code="https://github.com/bboylyg/ABL",
        needs=Needs(access="gradients", modality="text", training_data=True),
        cost="sixty steps of training, and one forward pass for each row",
        deviations=(
            "plain descent for a few steps, without the paper's turn at gamma: so few steps learn nothing well",
            "it ranks and accuses nobody, where the paper isolates from any set",
        ),
        blind_spots=(
            "few planted rows, which are learnt after the many that a model half knows: they are ranked last then",
            "short and common answers have low losses by nature",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(ge=1)] = 60
    lr: Annotated[float, Field(gt=0)] = 4e-3
    isolated: Annotated[float, Field(gt=0, lt=0.5)] = 0.01

    def screen(self, data: TextSet, model: LanguageModel, trusted: TextSet | None, /, *, run: Run) -> SampleScores:
        """Score every row by minus its loss, in nats a token."""
        if data.answers is None:
            raise NotMet("needs prompts with answers; this set has labels")
        if not len(data):
            raise NotMet("needs rows")
        tuned = model.clone()
        # Rows by their ids, so that their order in the set does not decide which are learnt first.
        order = sorted(range(len(data)), key=lambda row: data.ids[row])
        rows = token_rows(tuned, data)
        weights = list(tuned.module.parameters())
        fit(tuned, weights, [rows[at] for at in order], LanguageRecipe(steps=self.steps, lr=self.lr), run=run)
        parts = []
        with torch.no_grad():
            for start in range(0, len(rows), CHUNK):
                run.step(start, len(rows), self.card.name)
                parts.append(nll_of(tuned, rows[start : start + CHUNK]).cpu())
        scores = -torch.cat(parts).float()
        lowest = torch.zeros(len(data), dtype=torch.bool)
        lowest[scores.argsort(descending=True, stable=True)[: max(1, round(self.isolated * len(data)))]] = True
        measures: dict[str, float] = {"n": len(data), "suspected": int(lowest.sum())}
        row = ClassScore(label=0, score=float(scores.max()), measures=measures)
        return SampleScores(data.ids, scores, lowest.numpy(), (row,))
