"""The rows of a store as typed entries: which model, which defence, what came of it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ostiary.bench.store import Row
from ostiary.core.records import Rate

ACCURACY, SUCCESS, ROBUST = "accuracy", "attack success rate", "robust accuracy"
REACTIVATED = f"re-activated {SUCCESS}"
TPR, FPR = "true positive rate", "false positive rate"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model comes from: the role of its images, the data set, the network, by their names in the grid."""

    role: str
    data: str
    model: str


@dataclass(frozen=True, slots=True)
class Treatment:
    """What was done to a model, the seed aside: nothing (the twin), an attack at a rate, or a hard-benign kind.

    `params` is JSON text, without the rate.
    """

    kind: str
    name: str
    method: str = ""
    params: str = "{}"
    rate: float | None = None

    def __str__(self) -> str:
        if self.kind == "twin":
            return "twin"
        return self.name if self.rate is None else f"{self.name} {100 * self.rate:g} %"


@dataclass(frozen=True, slots=True)
class Defence:
    """A defence as a grid asks for it, on the models of one place. `trusted` counts images per class.

    `params` is JSON text, with the scan that a repair builds on.
    """

    name: str
    method: str
    params: str
    trusted: int
    source: str
    place: Place

    @property
    def verb(self) -> str:
        """Scan, screen, repair or guard."""
        return self.method.split(".")[-2]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. `defence` None is the model as it stands; `seconds` and `peak_bytes` are the method's own."""

    place: Place
    treatment: Treatment
    seed: int
    model_key: str
    defence: Defence | None
    status: str
    reason: str
    rates: Mapping[str, Rate]
    measures: Mapping[str, float]
    seconds: float | None
    peak_bytes: int | None

    def share(self, name: str) -> float | None:
        """The value of a rate; None when it was not measured."""
        rate = self.rates.get(name)
        return None if rate is None else rate.value

    def __str__(self) -> str:
        return f"{self.treatment} seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Board:
    """All entries of a store; `before` gives the model of a key as it stands, where that was measured."""

    entries: tuple[Entry, ...]
    before: Mapping[str, Entry]
    machines: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Read rows as `index.rows` gives them; the order of the rows does not matter."""
        kept = sorted(rows, key=lambda row: str(row["key"]))
        entries = sorted(map(_entry, kept), key=_order)
        before = {one.model_key: one for one in entries if one.defence is None and one.status == "ok"}
        return cls(tuple(entries), before, tuple(sorted({_machine(row) for row in kept if row.get("machine")})))

    def of_verb(self, verb: str) -> list[Entry]:
        """The entries of all defences of a verb."""
        return [one for one in self.entries if one.defence is not None and one.defence.verb == verb]

    @property
    def models(self) -> list[Entry]:
        """The models as they stand."""
        return [one for one in self.entries if one.defence is None]


def _entry(row: Row) -> Entry:
    place = Place(row["role"], row["data"], row["model"])
    params = {name: value for name, value in (row["params"] or {}).items() if name != "rate"}
    treatment = Treatment(row["kind"], row["attack"], row["method"], _text(params), row["rate"])
    defence = None
    if row["defence_method"] is not None:
        own = _text((row["defence_params"] or {}) | ({"scan": row["scan"]} if row.get("scan") else {}))
        defence = Defence(row["defence"], row["defence_method"], own, row["trusted"], row["source"], place)
    return Entry(
        place=place,
        treatment=treatment,
        seed=row["seed"],
        model_key=row["model_key"],
        defence=defence,
        status=row["status"],
        reason=row["reason"] or "",
        rates={name: Rate.model_validate(rate) for name, rate in row["rates"].items()},
        measures=row["measures"],
        seconds=row.get("method_seconds"),
        peak_bytes=row.get("peak_bytes"),
    )


def _text(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _order(one: Entry) -> tuple[Any, ...]:
    place, what, by = one.place, one.treatment, one.defence
    kind = {"attack": 0, "benign": 1, "twin": 2}[what.kind]
    defence = ("", "", "", 0, "") if by is None else (by.method, by.name, by.params, by.trusted, by.source)
    return (place.role, place.data, place.model, kind, what.name, what.params, what.rate or 0.0, *defence, one.seed)


def _machine(row: Row) -> str:
    machine = row["machine"]
    return f"{machine['cpu']}, {machine['device']}, torch {machine['torch']}, ostiary {machine['ostiary']}"


# --- names that tell apart ------------------------------------------------------------------------


def told_apart(things: Sequence[Treatment] | Sequence[Defence]) -> dict[Treatment | Defence, str]:
    """A name for each; where one name stands for several parameter sets, what differs is added to it."""
    names: dict[Treatment | Defence, str] = {}
    for name in dict.fromkeys(one.name for one in things):
        alike = [one for one in things if one.name == name]
        variants = list(dict.fromkeys((one.method, one.params) for one in alike))
        for one in alike:
            names[one] = name if len(variants) == 1 else f"{name} ({_difference(one, variants)})"
    return names


def _difference(one: Treatment | Defence, variants: Sequence[tuple[str, str]]) -> str:
    if len({method for method, _ in variants}) > 1:
        return one.method
    every, own = [json.loads(params) for _, params in variants], json.loads(one.params)
    differing = [name for name in own if len({json.dumps(params.get(name)) for params in every}) > 1]
    return ", ".join(f"{name}={own[name]}" for name in differing)
