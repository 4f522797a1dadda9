"""The smallest patch that sends every class to another one: what an all-to-all backdoor answers to."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet, OutOfTime
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.aims import Aim, ToShifted
from ostiary.scan.form_search import PatchSearch
from ostiary.scan.recover import evidence, keep_patches

LEAST_CLASSES = 4
"""With fewer there are no two other steps to compare one with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShiftTrigger(PatchSearch):
    """Recover the smallest patch that moves every class on by the same step, for every step, and compare the steps.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, with another aim: the
    all-to-all backdoor of Gu et al. 2017, BadNets, whose trigger turns class y into y + 1. A patch that moves each
    class elsewhere must leave them distinct, so that no patch of a model that nobody attacked does it unless it covers
    most of the image. See `PatchSearch` and `aims.ToShifted`. Raises NotMet for fewer than four classes, OutOfTime
    when the deadline passes first.
    """

    card: ClassVar[Card] = Card(
        id="scan.shift-trigger",
        summary="recovers the smallest patch that moves every class on by the same step, for every step",
        paper="none; the search of Wang et al. 2019, IEEE S&P, for the all-to-all backdoor of Gu et al. 2017",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS208",
        version="2",
        limits=(Limit(measure="size_ratio", low=4.0), Limit(measure="flip_held_out", low=0.4)),
        size="mask_l1",
        families=("all-to-all",),
        blind_spots=(
            "all-to-all backdoors that move classes by different steps",
            "triggers over the whole image; backdoors with one target",
            "models with fewer than four classes",
        ),
        marks=frozenset({"mechanism"}),
    )

    # On develop models the attacker's step leads after 6 rounds.
    drops: ClassVar[tuple[tuple[int, int], ...]] = ((6, 3), (12, 1))

    steps: Annotated[int, Field(gt=0)] = 160
    success: Annotated[float, Field(gt=0, le=1)] = 0.6

    def aim(self, classes: int) -> Aim:
        """Every step."""
        return ToShifted(classes)

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine `model` as a whole."""
        if len(model.classes) < LEAST_CLASSES:
            raise NotMet(f"needs {LEAST_CLASSES} classes, this model has {len(model.classes)}")
        name, recovered = self.card.name, self.recovered(model, trusted, run)
        if not recovered.found.finished.all():
            raise OutOfTime(f"the time limit passed during {name}", hint="raise --time-limit")
        told = evidence(recovered, self.form, name, size="mask_l1")
        ended = [row for row, dropped in zip(told.per_class, recovered.found.dropped, strict=True) if not dropped]
        top = max(ended, key=lambda row: row.score or 0.0)
        mask, pattern = (part[top.label : top.label + 1] for part in recovered.found.parts)
        keep_patches(run, name, mask, pattern, recovered.sample)
        best = [one for one in told.candidates if one.target == top.label]
        changes = {"subject": "model", "target": None, "shift": top.label + 1}
        return ModelEvidence(
            score=top.score,
            measures={"shift": float(top.label + 1), **top.measures},
            per_class=(),
            candidates=tuple(one.model_copy(update=changes) for one in best),
            examined=("model",),
            passes=told.passes,
        )
