"""What all data attacks share: choose samples, put the trigger in, relabel, shuffle, renumber."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ostiary.attacks.triggers import Trigger
from ostiary.attacks.truth import NONE, Mapping, Poisoned, Truth, wanted
from ostiary.core.card import Card
from ostiary.core.errors import DataError
from ostiary.core.execute import params_of
from ostiary.core.protocols import Trigger as AnyTrigger
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import ArraySet, load_uint8, to_uint8, to_unit
from ostiary.data.base import ImageSet

CHUNK = 4096

ImageTrigger = AnyTrigger[Images]
"""A trigger that need not be kept in a truth folder."""


@runtime_checkable
class Poisoning(Protocol):
    """What every attack on data has."""

    card: ClassVar[Card]

    @property
    def rate(self) -> float:
        """The poisoned share of the whole set."""
        ...


@runtime_checkable
class DataPoisoning(Poisoning, Protocol):
    """The fields that every data attack with a trigger has."""

    @property
    def mapping(self) -> Mapping:
        """Which labels the attacker wants."""
        ...

    @property
    def target(self) -> int:
        """The class the attacker wants, where there is one."""
        ...

    @property
    def source(self) -> int:
        """The class that a source-specific attack turns."""
        ...


def poison_with(
    attack: DataPoisoning,
    clean: ImageSet,
    trigger: Trigger,
    *,
    run: Run,
    train_trigger: ImageTrigger | None = None,
    cover: float = 0.0,
    cover_trigger: ImageTrigger | None = None,
) -> Poisoned:
    """Poison a share `attack.rate` of the whole set with `trigger` and the attack's label map.

    Samples whose label would not change are not poisoned; a clean-label attack poisons samples of
    the target class and changes no label. Where training images get something else than test images
    will, `train_trigger` says what. A share `cover` of the set carries `cover_trigger` (else
    the trigger itself) under its true label; a source-specific attack covers other classes than
    source and target. The poisoned set keeps nothing of the source's order or ids: everything is
    shuffled and renumbered, and pixels are uint8 for all. Raises DataError when target or source is
    no class, or too few samples can be poisoned.
    """
    classes, labels = len(clean.classes), clean.labels
    check_classes(attack, classes)
    wish = wanted(labels, attack.mapping, attack.target, attack.source, classes)
    eligible = labels == attack.target if attack.mapping == "clean-label" else wish != labels
    poisoned = choose(eligible, attack.rate, "poisoned", run.generator("choice"))
    covered = torch.zeros(len(labels), dtype=torch.bool)
    if cover > 0:
        free = ~poisoned
        if attack.mapping == "source-specific":
            free &= (labels != attack.source) & (labels != attack.target)
        covered = choose(free, cover, "covers", run.generator("cover"))
    source = load_uint8(clean)
    rng = run.generator("trigger")

    def paint(rows: Tensor) -> Tensor:
        x = source[rows]
        for hit, one in ((poisoned[rows], train_trigger or trigger), (covered[rows], cover_trigger or trigger)):
            if hit.any():
                x[hit] = to_uint8(one(to_unit(x[hit]), rng=rng))
        return x

    return part_from_truth(
        attack,
        clean,
        paint,
        torch.where(poisoned, wish, labels),
        labels,
        poisoned,
        covered=covered,
        mapping=attack.mapping,
        target=attack.target,
        source=attack.source,
        trigger=trigger,
        run=run,
    )


def part_from_truth(
    attack: Poisoning,
    clean: ImageSet,
    paint: Callable[[Tensor], Tensor],
    labels: Labels,
    true: Labels,
    poisoned: Tensor,
    *,
    covered: Tensor | None = None,
    mapping: Mapping | Literal["indiscriminate"] = "indiscriminate",
    target: int = NONE,
    source: int = NONE,
    trigger: Trigger | None = None,
    run: Run,
) -> Poisoned:
    """Shuffle and renumber a poisoned set, so that nothing of the source's order or ids is left, and note its truth.

    `paint` gives the uint8 pixels of rows; `labels` [m] are those of the set, `true` [m] those that
    the samples should have, `poisoned` and `covered` [m] say which were touched; all in the order of
    `clean`, what was added at the end.
    """
    order = torch.randperm(len(labels), generator=run.generator("order"))
    pixels = torch.empty(len(order), *clean.shape, dtype=torch.uint8)
    for begin in range(0, len(order), CHUNK):
        rows = order[begin : begin + CHUNK]
        pixels[begin : begin + CHUNK] = paint(rows)
    ids = tuple(f"{number:06d}" for number in range(len(order)))
    covers = torch.zeros_like(poisoned) if covered is None else covered
    truth = Truth(
        attack=attack.card.id,
        params=params_of(attack),
        mapping=mapping,
        target=target,
        source=source,
        classes=tuple(clean.classes),
        seed=run.seed,
        rate=attack.rate,
        source_digest=clean.digest,
        poisoned={ids[i]: int(true[order[i]]) for i in np.flatnonzero(poisoned[order].numpy())},
        covers=tuple(ids[i] for i in np.flatnonzero(covers[order].numpy())),
        trigger=trigger,
    )
    return Poisoned(ArraySet(pixels, labels[order], clean.classes, ids), truth)


def check_classes(attack: DataPoisoning, classes: int) -> None:
    """Raise DataError when the attack's target or source is none of `classes`, or they are one class."""
    named = {"target": attack.target}
    if attack.mapping == "source-specific":
        named["source"] = attack.source
    for name, label in named.items():
        if not 0 <= label < classes:
            raise DataError(f"{name} {label} is outside the classes 0..{classes - 1}")
    if len(set(named.values())) < len(named):
        raise DataError(f"source and target are both {attack.target}", hint="name another source or target")


def choose(eligible: Tensor, rate: float, what: str, rng: torch.Generator) -> Tensor:
    """A mask [n] of a share `rate` of all samples, drawn from the eligible ones; DataError when that cannot be."""
    rows = eligible.nonzero().squeeze(1)
    count = math.floor(rate * len(eligible) + 0.5)
    if not 0 < count <= len(rows):
        raise DataError(
            f"rate {rate:g} of {len(eligible)} samples means {count} {what}, but {len(rows)} can be",
            hint="choose a rate that gives at least one and no more than the classes concerned have",
        )
    chosen = torch.zeros(len(eligible), dtype=torch.bool)
    chosen[rows[torch.randperm(len(rows), generator=rng)[:count]]] = True
    return chosen
