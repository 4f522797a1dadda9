"""Mahalanobis distance of a prompt: how far the hidden state at its end lies from those of trusted prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Scores
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.guard.fitted import Fitted, Takes
from ostiary.models.gaussian import within
from ostiary.models.language import LanguageModel

CARD = Card(
    id="text.guard.mahalanobis",
    summary="measures how far the hidden state at the end of a prompt lies from those of trusted prompts",
    paper="Lee et al. 2018, NeurIPS, arXiv 1807.03888",
    official_code="https://github.com/pokaxpoka/deep_Mahalanobis_detector",
    needs=Needs(access="gradients", modality="text", trusted_per_class=40),
    cost="one forward pass per prompt",
    code="OS407",
    deviations=(
        "one Gaussian for all prompts, as these have no classes; the covariance is shrunk (Ledoit and Wolf)",
        "the last hidden state of the last token, before the answer begins",
        "the limit is a quantile of trusted prompts, not fitted on outliers",
    ),
    blind_spots=(
        "a trigger that acts only once the answer has begun",
        "prompts of a kind that the trusted ones have not are flagged, too",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedHiddenMahalanobis(Fitted):
    """The mean [1, d] of trusted states, and the matrix [d, d] that whitens them."""

    card: ClassVar[Card] = CARD
    takes: ClassVar[Takes] = "prompts"
    tensors: ClassVar[tuple[str, ...]] = ("means", "whiten")
    scored_at_once: ClassVar[int] = 64

    means: Tensor
    whiten: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: LanguageModel, texts: Sequence[str], /) -> Scores:
        """Squared Mahalanobis distance of each prompt's last hidden state."""
        if not texts:
            return torch.empty(0)
        return ((last_states(model, texts) - self.means) @ self.whiten).square().sum(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenMahalanobis:
    """Squared Mahalanobis distance of the state in which the model begins its answer; far is suspicious.

    Source: Lee, Lee, Lee, Shin 2018 (NeurIPS), sec. 2.1, as `guard.mahalanobis`: a trigger brings the model into a
    state that ordinary prompts do not.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedHiddenMahalanobis

    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: LanguageModel, trusted: TextSet, /, *, run: Run) -> FittedHiddenMahalanobis:
        """Learn the Gaussian on half of the trusted prompts, set the limit on a quarter, measure on the last."""
        parts = stratified_rows(trusted.labels, (0.5, 0.25, 0.25), run.seed)
        own, limit, check = (trusted.subset(rows) for rows in parts)
        states = torch.cat([last_states(model, texts) for texts, _ in own.batches(64)])
        ruler = within(states.numpy(), own.labels.numpy(), 1)
        means, whiten = (torch.from_numpy(part).float() for part in (ruler.means, ruler.whiten))
        fitted = FittedHiddenMahalanobis(means, whiten, 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted


@torch.no_grad()
def last_states(model: LanguageModel, texts: Sequence[str]) -> Tensor:
    """The last hidden state [n, d] of the last token of each prompt as the model is asked."""
    ids, mask = model.padded([model.prompt(text) for text in texts])
    found = model.run(ids, mask, use_cache=False, output_hidden_states=True)
    state: Tensor = found.hidden_states[-1][:, -1]  # type: ignore[attr-defined]
    return state.float().cpu()
