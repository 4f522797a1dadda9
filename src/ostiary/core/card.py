"""What a method says about itself, and what it needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Access = Literal["none", "labels", "probabilities", "gradients"]
Modality = Literal["images", "text", "any"]
Mark = Literal["mechanism", "scale"]
Family = Literal[
    "patch", "whole-image", "frequency", "warp", "all-to-all", "source-specific", "sample-specific", "phrase", "style"
]
FAMILIES: Mapping[Modality, tuple[Family, ...]] = {
    "images": ("patch", "whole-image", "frequency", "warp", "all-to-all", "source-specific", "sample-specific"),
    "text": ("phrase", "style"),
}
"""Kinds of backdoors, by what tells a search for them apart; where a scan looked for none of a kind, it says so."""

ACCESS_ORDER: tuple[Access, ...] = ("none", "labels", "probabilities", "gradients")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """One measure and the closed range in which it counts against a subject.

    `log` says that the measure is compared between models by its logarithm: a size, a ratio, a p-value. `kept` says
    that a card's first limit holds against reference models too, where else p takes its place.
    """

    measure: str
    low: float | None = None
    high: float | None = None
    log: bool = True
    kept: bool = False

    def meets(self, value: float | None) -> bool:
        """True when `value` was measured and lies in the range."""
        if value is None:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def met(measures: Mapping[str, float], limits: Sequence[Limit]) -> bool:
    """True when every limit is met by a measured value: limits are a conjunction, and none accuse nobody."""
    return bool(limits) and all(limit.meets(measures.get(limit.measure)) for limit in limits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What must be at hand before a method may run."""

    access: Access = "none"
    modality: Modality = "any"
    trusted_per_class: int = 0
    training_data: bool = False
    trigger: bool = False

    def unmet(self, have: "Have") -> str | None:
        """The first need that `have` does not meet, in words; None when all are met."""
        if self.modality not in ("any", have.modality):
            return f"works on {self.modality} only, this is {have.modality}"
        if ACCESS_ORDER.index(self.access) > ACCESS_ORDER.index(have.access):
            return f"needs model access '{self.access}', has '{have.access}'"
        if self.training_data and not have.training_data:
            return "needs the training data"
        if self.trigger and not have.trigger:
            return "needs a trigger recovered by a scan"
        if self.trusted_per_class > have.trusted_per_class:
            return (
                f"needs {self.trusted_per_class} trusted samples per class (--trusted), "
                f"the rarest class has {have.trusted_per_class}"
            )
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Have:
    """What the caller brings, as the planner sees it."""

    access: Access = "none"
    modality: Modality = "images"
    trusted_per_class: int = 0
    training_data: bool = False
    trigger: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A method's own page: source, needs, cost, deviations, blind spots.

    `id` is `verb.name` (`text.verb.name`), unique across packages. `code` is the stable code of its
    findings and `limits` the built-in conjunction of ranges that makes a class suspicious when no
    calibration of the user's own is given. `size` names the measure of a trigger's own size, where there is one: it is
    held against reference models beside the first limit's measure. Where `confirms` is False, held-out samples confirm
    none of its findings without reference models: they are `suspect`. `families` are the kinds of backdoors that it
    searches for; a scan of none clears none. `marks` are the conformance marks it has earned.
    """

    id: str
    summary: str
    paper: str
    needs: Needs
    cost: str
    version: str = "1"
    official_code: str = ""
    code: str = ""
    limits: tuple[Limit, ...] = ()
    size: str = ""
    sample_limit: float | None = None
    confirms: bool = True
    families: tuple[Family, ...] = ()
    deviations: tuple[str, ...] = ()
    blind_spots: tuple[str, ...] = ()
    marks: frozenset[Mark] = field(default_factory=frozenset)

    @property
    def verb(self) -> str:
        """The second-last part of the id: scan, screen, repair, guard, harden, attack, perturb or benign."""
        return self.id.split(".")[-2]

    @property
    def others(self) -> tuple[Limit, ...]:
        """The limits that hold beside p, against reference models: all but the first, and that where it is kept."""
        return self.limits if self.limits and self.limits[0].kept else self.limits[1:]

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.id.rsplit(".", 1)[-1]
