"""STRIP: lay trusted images over an input; a triggered one keeps its prediction."""

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

CARD = Card(
    id="guard.strip",
    summary="blends each input with trusted images and measures how much the prediction moves",
    paper="Gao et al. 2019, ACSAC, arXiv 1902.06531",
    official_code="https://github.com/garrisongys/STRIP",
    needs=Needs(access="probabilities", modality="images", trusted_per_class=4),
    cost="one forward pass per overlay and input",
    code="OS401",
    deviations=("the limit is the empirical quantile, not that of a fitted normal",),
    blind_spots=("source-specific and sample-specific triggers", "triggers that a blend destroys"),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedStrip(Fitted):
    """A fitted STRIP: the overlays [m, c, h, w]."""

    card: ClassVar[Card] = CARD
    tensors: ClassVar[tuple[str, ...]] = ("overlays",)
    scored_at_once: ClassVar[int] = 16

    overlays: Tensor
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: Predictor[Images], x: Images, /) -> Scores:
        """Minus the mean entropy in bits of each input's blends; in [-log2 k, 0]."""
        m, most = len(self.overlays), at_once(x)
        over = self.overlays.to(x)
        scores = []
        for part in x.split(max(1, most // m)):
            blends = (part[:, None] + over[None]).clamp_(0, 1).flatten(0, 1)
            p = torch.cat([model.predict(some).float() for some in blends.split(most)])
            entropy = -(p * p.clamp(min=1e-12).log2()).sum(1)
            # Blends are input-major: the m overlays of one input stand together.
            scores.append(-entropy.view(len(part), m).mean(1))
        return torch.cat(scores).cpu() if scores else torch.empty(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Mean entropy of the predictions of an input blended with trusted images; low entropy is suspicious.

    Source: Gao, Xu, Wang, Chen, Ranasinghe, Nepal 2019, STRIP (ACSAC; arXiv 1902.06531), sec. 4:
    N = 100 overlays added to the input, entropy in bits averaged over them, the limit at a wanted
    false rejection rate on trusted inputs. The score here is minus that entropy.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedStrip

    overlays: Annotated[int, Field(gt=0)] = 100
    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.01

    def fit(self, model: Predictor[Images], trusted: LabelledSet[Images], /, *, run: Run) -> FittedStrip:
        """Set the limit on one third of the trusted images; the second third is laid over, the last only measured."""
        over, limit, check = split(trusted, (0.34, 0.33, 0.33), seed=run.seed)
        draw = torch.randint(len(over), (self.overlays,), generator=run.generator("overlays"))
        fitted = FittedStrip(over.take(draw), 0.0, model.digest)
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted
