"""GradSentry: rows whose gradient pulls the last layer of a model in more directions than trusted rows do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.stats import hypergeom
from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.training.language import token_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class GradSentry:
    """The spectral entropy of each row's gradient in the last layer, at the model before it is fine-tuned.

    Source: Zhao et al. 2026, GradSentry (arXiv 2605.26574), sec. 3: the singular values of the gradient of the last
    layer's weights, the largest `values` of them as shares of their sum, and their entropy; planted rows have more. The
    gradient is that of the answer's mean loss, the outer product of the errors of its tokens and their hidden states,
    so that one forward pass gives it. A row counts as wide beyond the `quantile` of trusted rows; `chance` is how
    likely as many wide rows are where suspect and trusted ones are alike, exactly (as balls drawn from one urn).

    Raises NotMet for a set without answers.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.gradsentry",
        summary="rows whose gradient has more directions than those of trusted rows, at the model before fine-tuning",
        paper="Zhao et al. 2026, arXiv 2605.26574",
        official_code="https://github.com/dongdongzhaoUP/GradSentry",
        needs=Needs(access="gradients", modality="text", training_data=True, trusted_per_class=40),
        cost="one forward pass for each row",
        code="OS611",
        limits=(Limit(measure="wide", low=0.02), Limit(measure="chance", high=0.01)),
        deviations=("the limit is a quantile of trusted rows, and a set is accused where chance does not explain it",),
        blind_spots=(
            "few planted rows: under about 4 % of a thousand rows, beside 200 trusted ones, they lead the ranking only",
            "a model that was poisoned already: planted rows then have small gradients",
            "trusted rows with answers as long and as odd, refusals among them, put the limit above planted ones",
            "ordinary rows of a task, or of a length, that the trusted rows have not look planted",
        ),
        marks=frozenset({"mechanism"}),
    )

    values: Annotated[int, Field(ge=2)] = 32
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.99

    def screen(self, data: TextSet, model: LanguageModel, trusted: TextSet, /, *, run: Run) -> SampleScores:
        """Score every row by its entropy, in nats."""
        if data.answers is None or trusted.answers is None:
            raise NotMet("needs prompts with answers; a set has labels")
        known, own = (self._entropies(model, one, run) for one in (trusted, data))
        beyond = max(1, round((1 - self.quantile) * len(known)))
        wide = own > np.sort(known)[-beyond]
        count = int(wide.sum())
        # As many wide rows or more come where at most `beyond` - 1 of the highest of all are trusted.
        chance = hypergeom.cdf(beyond - 1, len(own) + len(known), len(known), count + beyond - 1) if count else 1.0
        measures = {"wide": count / len(own), "chance": float(chance), "n": len(own), "suspected": count}
        row = ClassScore(label=0, score=count / len(own), measures=measures)
        return SampleScores(data.ids, torch.from_numpy(own.astype(np.float32)), wide, (row,))

    def _entropies(self, model: LanguageModel, data: TextSet, run: Run) -> np.ndarray:
        found = np.empty(len(data))
        for at, row in enumerate(token_rows(model, data)):
            run.step(at, len(data), self.card.name)
            found[at] = entropy(spectrum(*errors_and_states(model, row))[: self.values])
        run.progress(len(data), len(data), self.card.name)
        return found


@torch.no_grad()
def errors_and_states(model: LanguageModel, row: tuple[Sequence[int], Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Of each token of an answer the error [t, v], chances less truth over t, and what the last layer takes [t, d]."""
    seen: list[Tensor] = []

    def keep(module: Any, given: tuple[Tensor, ...]) -> None:
        del module
        seen.append(given[0])

    ids, mask = model.padded([[*row[0], *row[1]]])
    hook = model.module.get_output_embeddings().register_forward_pre_hook(keep)  # type: ignore[operator]
    try:
        logits = model.logits(ids, mask)
    finally:
        hook.remove()
    length = min(len(row[1]), ids.shape[1] - 1)
    errors = logits[0, -length - 1 : -1].float().softmax(1)
    errors[torch.arange(length), ids[0, -length:]] -= 1
    return errors / length, seen[0][0, -length - 1 : -1].float()


def spectrum(errors: Tensor, states: Tensor) -> Tensor:
    """The singular values of the gradient errors^T states, from a matrix with no more rows than the answer has."""
    small = torch.linalg.qr(errors.T.double(), mode="r").R @ states.double()
    found: Tensor = torch.linalg.svdvals(small)
    return found


def entropy(values: Tensor) -> float:
    """The entropy of values as shares of their sum, in nats; 0 where there is nothing."""
    shares = values / values.sum().clamp(min=1e-30)
    return float(torch.special.entr(shares).sum())
