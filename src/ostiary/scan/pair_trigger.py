"""The smallest patch that sends one class to another and leaves the rest: a source-specific backdoor's trigger."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import Candidate, ClassScore, ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.aims import Aim, OfPairs
from ostiary.scan.form_search import PatchSearch
from ostiary.scan.recover import evidence, keep_patches

LEAST_OTHERS = 3
"""Pairs that one is held against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTrigger(PatchSearch):
    """Recover the smallest patch that sends one class to another and leaves all others alone, for every pair.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, with another aim: the
    source-specific backdoor (Tang et al. 2021, SCAn), whose trigger acts on one class only. That all others stay is
    what tells it from the natural nearness of two classes. Most pairs are dropped early, and those that are nearest by
    nature go on to the end; a pair is held against the smallest of these. A class counts with the smallest patch of
    the pairs that lead to it. See `PatchSearch` and `aims.OfPairs`.
    """

    card: ClassVar[Card] = Card(
        id="scan.pair-trigger",
        summary="recovers the smallest patch that sends one class to another and leaves the rest, for every pair",
        paper="none; the search of Wang et al. 2019, IEEE S&P, for source-specific backdoors",
        needs=Needs(access="gradients", modality="images", trusted_per_class=20),
        cost="steps x classes^2 x batch forward and backward passes to the input, most of them in the first rounds",
        code="OS209",
        version="2",
        limits=(Limit(measure="size_ratio", low=1.8), Limit(measure="flip_held_out", low=0.5)),
        size="mask_l1",
        families=("source-specific",),
        blind_spots=(
            "triggers over the whole image",
            "backdoors that act on several classes, or on all",
        ),
        marks=frozenset({"mechanism"}),
    )
    drops: ClassVar[tuple[tuple[int, int], ...]] = ((8, 24), (20, 8))

    steps: Annotated[int, Field(gt=0)] = 240
    success: Annotated[float, Field(gt=0, le=1)] = 0.8

    def aim(self, classes: int) -> Aim:
        """Every ordered pair."""
        return OfPairs(classes)

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model` as a target."""
        name, pairs, recovered = self.card.name, OfPairs(len(model.classes)), self.recovered(model, trusted, run)
        told = evidence(recovered, self.form, name, size="mask_l1")
        every = torch.arange(len(pairs))
        sources, targets = pairs.sources(every).tolist(), pairs.targets(every).tolist()
        best: dict[int, Candidate] = {}
        chosen = [0] * len(model.classes)
        for one in sorted(told.candidates, key=lambda one: one.size, reverse=True):
            pair = one.row
            others = [other.size for other in told.candidates if other is not one]
            ratio = min(others) / one.size if len(others) >= LEAST_OTHERS else None
            changes = {"subject": f"class:{targets[pair]}", "target": targets[pair], "source": sources[pair]}
            best[targets[pair]], chosen[targets[pair]] = one.model_copy(update={**changes, "score": ratio}), pair
        mask, pattern = (part[chosen] for part in recovered.found.parts)
        keep_patches(run, name, mask, pattern, recovered.sample)
        cut = {targets[pair] for pair in (~recovered.found.finished).nonzero().flatten().tolist()}
        scores = [one.score for one in best.values() if one.score is not None]
        return ModelEvidence(
            score=max(scores, default=None),
            per_class=tuple(_row(label, best.get(label)) for label in range(len(model.classes))),
            candidates=tuple(sorted(best.values(), key=lambda one: -(one.score or 0.0))),
            examined=tuple(f"class:{label}" for label in range(len(model.classes)) if label not in cut),
            passes=told.passes,
        )


def _row(label: int, one: Candidate | None) -> ClassScore:
    """A class with the smallest patch of the pairs that lead to it; unscored where all were dropped."""
    if one is None:
        return ClassScore(label=label, score=None)
    measures = {"mask_l1": one.size, "source": float(one.source or 0)}
    measures |= {} if one.score is None else {"size_ratio": one.score}
    measures |= {} if one.flip_held_out.value is None else {"flip_held_out": one.flip_held_out.value}
    rates = {"flip_search": one.flip_search, "flip_held_out": one.flip_held_out}
    return ClassScore(label=label, score=one.score, measures=measures, rates=rates)
