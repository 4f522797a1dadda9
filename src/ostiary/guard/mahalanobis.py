"""Mahalanobis distance: flag inputs whose features lie far from the class that the model predicts."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Scores
from ostiary.data import split
from ostiary.guard.fitted import Fitted
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import within

CARD = Card(
    id="guard.mahalanobis",
    summary="measures how far an input's features lie from trusted ones of the class that the model predicts",
    paper="Lee et al. 2018, NeurIPS, arXiv 1807.03888",
    official_code="https://github.com/pokaxpoka/deep_Mahalanobis_detector",
    needs=Needs(access="gradients", modality="images", trusted_per_class=10),
    cost="one forward pass per input",
    code="OS402",
    deviations=(
        "the last layer's input alone, without noise added to the image; the covariance is shrunk (Ledoit and Wolf)",
        "the limit is a quantile of trusted inputs, not fitted on outliers",
    ),
    blind_spots=(
        "triggers whose features lie amid the target's, as adaptive attacks make them",
        "inputs of another kind without any trigger are flagged, too",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedMahalanobis(Fitted):
    """Means of the classes [k, d], and the matrix [d, d] that whitens the variation within them."""

    card: ClassVar[Card] = CARD
    tensors: ClassVar[tuple[str, ...]] = ("means", "whiten")

    means: Tensor
    whiten: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: TorchClassifier, x: Images, /) -> Scores:
        """Squared Mahalanobis distance of each input from the class that the model predicts for it."""
        return self.answer(model, x)[1]

    def answer(self, model: TorchClassifier, x: Images, /) -> tuple[Tensor, Scores]:
        """The model's probabilities and the scores, of one pass."""
        features, logits = model.features_and_logits(x)
        gap = features.float().cpu() - self.means[logits.argmax(1).cpu()]
        return logits.float().softmax(1).cpu(), (gap @ self.whiten).square().sum(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mahalanobis:
    """Squared Mahalanobis distance from the predicted class; far is suspicious.

    Source: Lee, Lee, Lee, Shin 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks (NeurIPS), sec. 2.1: a Gaussian for each class, one covariance for all. A trigger moves an input
    to its target by other features than those of the target's own members.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedMahalanobis

    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> FittedMahalanobis:
        """Learn the Gaussians on half of the trusted images, set the limit on a quarter, measure on the last."""
        own, limit, check = split(trusted, (0.5, 0.25, 0.25), seed=run.seed)
        features = torch.cat([model.features(x.to(run.device)).float().cpu() for x, _ in own.batches(128)])
        ruler = within(features.numpy(), own.labels.numpy(), len(own.classes))
        means, whiten = (torch.from_numpy(part).float() for part in (ruler.means, ruler.whiten))
        fitted = FittedMahalanobis(means, whiten, 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted
