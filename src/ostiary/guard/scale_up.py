"""SCALE-UP: multiply the pixels of an input; a triggered one keeps its prediction."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Scores
from ostiary.data import split
from ostiary.guard.fitted import Fitted, at_once

LEAST_SPREAD = 0.2
"""Of a class's consistency, set on develop models: where trusted inputs agree by chance, little must not be much."""

CARD = Card(
    id="guard.scale-up",
    summary="multiplies the pixels of each input and measures how often the prediction stays",
    paper="Guo et al. 2023, ICLR, arXiv 2302.03251",
    official_code="https://github.com/JunfengGo/SCALE-UP",
    needs=Needs(access="labels", modality="images", trusted_per_class=10),
    cost="one forward pass per factor and input, and one more",
    code="OS404",
    deviations=(
        "the limit is a quantile of trusted inputs, not a fixed one",
        "where the model gives probabilities, that of the first prediction counts in place of 0 or 1: fewer inputs tie",
        "a class with fewer than two trusted inputs is held against all of them; a spread below 0.2 counts as 0.2",
    ),
    blind_spots=(
        "triggers that brightening destroys: source-specific, all-to-all, warps, sinusoids, sample-specific ones",
        "models that give bright images the target of the backdoor: its honest inputs then stay as triggered ones do",
        "images of few grey levels, which brightening hardly changes: of digits, white on black, nothing is told",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedScaleUp(Fitted):
    """A fitted SCALE-UP: the factors [m], and mean and spread of the consistency by the predicted class [k, 2]."""

    card: ClassVar[Card] = CARD
    tensors: ClassVar[tuple[str, ...]] = ("factors", "usual")

    factors: Tensor
    usual: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: Predictor[Images], x: Images, /) -> Scores:
        """How much more often the prediction stays than is usual for its class, in standard deviations."""
        return self.answer(model, x)[1]

    def answer(self, model: Predictor[Images], x: Images, /) -> tuple[Tensor, Scores]:
        """The model's probabilities and the scores; an input goes through the model beside its copies."""
        probabilities, kept = self.consistency(model, x)
        mean, spread = self.usual[probabilities.argmax(1)].unbind(1)
        return probabilities, torch.div(kept - mean, spread)

    def consistency(self, model: Predictor[Images], x: Images) -> tuple[Tensor, Tensor]:
        """Probabilities [n, k], and of the likeliest class the mean probability over the multiplied copies [n]."""
        times = torch.cat([torch.ones(1), self.factors]).to(x)
        most, first, kept = at_once(x), [], []
        for part in x.split(max(1, most // len(times))):
            copies = (part[:, None] * times[:, None, None, None]).clamp_(0, 1).flatten(0, 1)
            answers = torch.cat([model.predict(some).float() for some in copies.split(most)]).cpu()
            p = answers.unflatten(0, (-1, len(times)))
            first.append(p[:, 0])
            kept.append(p[torch.arange(len(p)), 1:, p[:, 0].argmax(1)].mean(1))
        return torch.cat(first), torch.cat(kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleUp:
    """Share of multiplied copies of an input that keep its prediction; more than is usual for its class is suspicious.

    Source: Guo, Li, Chen, Guo, Sun, Liu 2023, SCALE-UP (ICLR; arXiv 2302.03251), sec. 4: pixels times each of the
    `factors`, cut at white; the scaled prediction consistency is the share of these copies that the model gives the
    label of the input. This is the data-limited form: less the mean and over the standard deviation of trusted inputs
    of the same predicted class. Labels suffice, which come as one-hot rows.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedScaleUp

    factors: tuple[Annotated[float, Field(gt=1)], ...] = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0)
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: Predictor[Images], trusted: LabelledSet[Images], /, *, run: Run) -> FittedScaleUp:
        """Learn what is usual on half of the trusted images, set the limit on a quarter, measure on the last."""
        own, limit, check = split(trusted, (0.5, 0.25, 0.25), seed=run.seed)
        fitted = FittedScaleUp(torch.tensor(self.factors), torch.empty(0, 2), 0.0, model.digest)
        parts = [fitted.consistency(model, x.to(run.device)) for x, _ in own.batches(fitted.scored_at_once)]
        p, kept = (torch.cat(part) for part in zip(*parts, strict=True))
        predicted = p.argmax(1)
        fitted.usual = torch.stack([_usual(kept, predicted == label) for label in range(len(model.classes))])
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted


def _usual(kept: Tensor, own: Tensor) -> Tensor:
    """Mean and spread [2] of a class's own, or of all where there are fewer than two."""
    values = kept[own] if own.sum() > 1 else kept
    return torch.stack([values.mean(), values.std().clamp(min=LEAST_SPREAD)])
