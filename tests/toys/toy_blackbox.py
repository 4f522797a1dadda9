"""A model behind a function that gives labels only, and a scanner that needs no more than that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Candidate, ClassScore, ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import split
from ostiary.perturb import stamp


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A `Predictor` around any function from images to labels: no module, no gradients, no features."""

    answer: Callable[[Tensor], Tensor]
    classes: tuple[str, ...]
    digest: str = "endpoint"

    def predict(self, x: Images, /) -> Tensor:
        """One-hot labels [n, k]."""
        return one_hot(self.answer(x), len(self.classes)).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyLabelFlip:
    """How often a random bright patch sends samples of other classes to one class.

    The best of `patches` patches is chosen per class on half of the trusted samples; how often it
    flips is told on the other half.
    """

    card: ClassVar[Card] = Card(
        id="scan.toy-label-flip",
        summary="share of samples that a random bright patch sends to one class",
        paper="none: a toy for the contract tests",
        needs=Needs(access="labels", modality="images", trusted_per_class=2),
        cost="one prediction per patch and sample",
        code="OS201",
        limits=(Limit(measure="flip_held_out", low=0.75),),
        blind_spots=("every trigger that is no bright patch",),
    )

    patches: Annotated[int, Field(gt=0)] = 60
    size: Annotated[int, Field(gt=0)] = 3
    evidence: str = "candidates"

    def scan(self, model: Predictor[Images], trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine every class."""
        search, held_out = split(trusted, (0.5, 0.5), seed=run.seed)
        masks = self._masks(trusted.take([0]).shape, run.generator("patches"))
        first = self._flips(model, search, masks)
        best = torch.stack([torch.tensor([rate.value or 0.0 for rate in rates]) for rates in first]).argmax(0)
        kept = masks[best]
        second = self._flips(model, held_out, kept)
        rows, candidates = [], []
        for label in range(len(model.classes)):
            found, told = first[int(best[label])][label], second[label][label]
            measures = {"flip_search": found.value or 0.0, "flip_held_out": told.value or 0.0}
            rates = {"flip_search": found, "flip_held_out": told}
            rows.append(ClassScore(label=label, score=told.value, measures=measures, rates=rates))
            candidates.append(
                Candidate(
                    subject=f"class:{label}",
                    target=label,
                    score=told.value,
                    size=float(kept[label].sum()),
                    flip_search=found,
                    flip_held_out=told,
                    artifact=self.card.name,
                    mask=kept[label].numpy(),
                    pattern=torch.ones(trusted.take([0]).shape[1:]).numpy(),
                )
            )
        run.artifact(f"{self.card.name}-mask", kept)
        return ModelEvidence(
            score=max(row.score or 0.0 for row in rows),
            per_class=tuple(rows),
            candidates=tuple(candidates) if self.evidence == "candidates" else (),
            examined=tuple(f"class:{row.label}" for row in rows),
        )

    def _masks(self, shape: torch.Size, rng: torch.Generator) -> Tensor:
        h, w = shape[2:]
        masks = torch.zeros(self.patches, h, w)
        for mask in masks:
            row, column = (int(torch.randint(0, side - self.size + 1, (), generator=rng)) for side in (h, w))
            mask[row : row + self.size, column : column + self.size] = 1.0
        return masks

    def _flips(self, model: Predictor[Images], data: LabelledSet[Images], masks: Tensor) -> list[list[Rate]]:
        """Per mask and class: how many samples of the other classes go there."""
        x, y, k = data.take(range(len(data))), data.labels, len(model.classes)
        found = []
        for mask in masks:
            to = model.predict(stamp(x, mask, torch.ones(x.shape[1:]))).argmax(1)
            found.append([Rate(k=int((to[y != c] == c).sum()), n=int((y != c).sum())) for c in range(k)])
        return found
