"""From a grid to models and cells, each with a key: the hash of all that decides its result."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

from ostiary.bench.grid import DefencePart, Grid, Role, parameters
from ostiary.core.catalog import method_class

ModelKind = Literal["twin", "attack", "benign"]
Part = Literal["train", "test"]
VERSION = 1
"""Raised when what a key stands for is computed in another way than before."""


def digest_of(document: Any) -> str:
    """SHA-256 of a JSON value in its one canonical form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_of(*parts: Any) -> int:
    """A seed that depends on `parts` alone; seeds of different parts have nothing in common."""
    return int(digest_of(list(parts))[:8], 16)


@dataclass(frozen=True)
class DataSpec:
    """The images of one data set as a role sees them: pools, test part and trusted sets."""

    name: str
    train: str
    test: str
    digests: tuple[str, str]
    images: int
    set_aside: int
    trusted_from: Part
    pools: tuple[int, int, int]
    role: Role
    imbalance: float = 1.0

    @cached_property
    def key(self) -> str:
        """What decides the images: content, sizes and role."""
        own: list[Any] = [self.images, self.set_aside, self.trusted_from, list(self.pools), self.role]
        own += [self.imbalance] if self.imbalance != 1 else []  # balanced sets keep the keys that they had
        return digest_of(["data", VERSION, list(self.digests), own])

    def part_key(self, part: Literal["pool", "test"]) -> str:
        """What decides the pool that models are trained on, or the test part."""
        return digest_of([part, self.key])

    def trusted_key(self, budget: int, source: str, seed: int) -> str:
        """What decides one trusted set of `budget` images per class."""
        return digest_of(["trusted", self.key, budget, source, seed])


@dataclass(frozen=True)
class ModelSpec:
    """One model: the twin (nothing done), under an attack, or hard-benign."""

    data: DataSpec
    model: str
    arch: str
    width: int | None
    recipe: dict[str, Any]
    seed: int
    kind: ModelKind
    name: str = "none"
    method: str = ""
    version: str = ""
    params: dict[str, Any] | None = None

    @cached_property
    def key(self) -> str:
        """What decides the weights."""
        own = [self.kind, self.method, self.version, self.params]
        return digest_of(["model", VERSION, self.data.key, self.arch, self.width, self.recipe, self.seed, own])

    @property
    def rate(self) -> float | None:
        """The poisoned share, of an attack."""
        return (self.params or {}).get("rate")

    @property
    def twin(self) -> "ModelSpec":
        """The model of equal data, recipe and seed with nothing done to it."""
        return (
            self
            if self.kind == "twin"
            else ModelSpec(self.data, self.model, self.arch, self.width, self.recipe, self.seed, "twin")
        )

    @property
    def from_twin(self) -> bool:
        """True when the model is made of its twin: an attack on the weights."""
        return self.kind == "attack" and hasattr(method_class("attack", self.method), "edit")


@dataclass(frozen=True)
class Cell:
    """One measurement: a defence on a model; `defence` None is the model as it stands."""

    model: ModelSpec
    name: str = "none"
    defence: DefencePart | None = None
    version: str = ""
    params: dict[str, Any] | None = None
    budget: int = 0
    source: str = "same"
    scan: "Cell | None" = None

    @cached_property
    def key(self) -> str:
        """What decides the result."""
        if self.defence is None:
            return digest_of(["baseline", VERSION, self.model.key])
        own = [self.defence.id, self.version, self.params, self.scan.key if self.scan else None]
        return digest_of(["cell", VERSION, self.model.key, own, self.budget, self.source])

    @property
    def verb(self) -> str:
        """The defence's verb."""
        return self.defence.id.split(".")[-2] if self.defence else "none"


def model_spec(document: dict[str, Any]) -> ModelSpec:
    """The spec that `dataclasses.asdict` and JSON made a document of."""
    data = dict(document["data"])
    data |= {"digests": tuple(data["digests"]), "pools": tuple(data["pools"])}
    return ModelSpec(**{**document, "data": DataSpec(**data)})


def models(grid: Grid, data: dict[str, DataSpec]) -> list[ModelSpec]:
    """All models of a grid, twins first, since others are measured against them."""
    recipe = grid.recipe.model_dump()
    twins, others = [], []
    for spec, (label, model), seed in product(data.values(), grid.model.items(), grid.seeds):
        base = ModelSpec(spec, label, model.arch, model.width, recipe, seed, "twin")
        twins.append(base)
        others += [_with(base, "attack", *one) for one in _attacks(grid, seed)]
        others += [_with(base, "benign", *one) for one in _benign(grid, seed)]
    return [*twins, *others]


def _with(base: ModelSpec, kind: ModelKind, name: str, method: str, params: dict[str, Any]) -> ModelSpec:
    version = method_class(kind, method).card.version
    return ModelSpec(
        base.data, base.model, base.arch, base.width, base.recipe, base.seed, kind, name, method, version, params
    )


def _attacks(grid: Grid, seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, attack in grid.attack.items():
        for rate in (attack.rates or grid.rates) if seed in (attack.seeds or grid.seeds) else ():
            yield name, attack.id, parameters("attack", attack.id, {**attack.set, "rate": rate})


def _benign(grid: Grid, seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, kind in grid.benign.items():
        if seed not in (kind.seeds or grid.seeds):
            continue
        yield name, kind.id, parameters("benign", kind.id, kind.set)


def cells(grid: Grid, made: list[ModelSpec]) -> list[Cell]:
    """All cells of a grid, model by model: as it stands, then every defence for every budget and source."""
    found = []
    # A repair that builds on a scan comes after it.
    ordered = sorted(grid.defence.items(), key=lambda item: item[1].scan is not None)
    for model in made:
        found.append(Cell(model))
        for budget, source in product(grid.trusted, grid.sources):
            by_name: dict[str, Cell] = {}
            for name, defence in ordered:
                if has_data(model) or defence.id.split(".")[-2] != "screen":
                    by_name[name] = _cell(model, name, defence, budget, source, by_name)
            found += by_name.values()
    return found


def has_data(model: ModelSpec) -> bool:
    """Whether there is suspect training data to screen; who trains or edits the model hands over none."""
    return model.kind != "attack" or hasattr(method_class("attack", model.method), "poison")


def _cell(model: ModelSpec, name: str, defence: DefencePart, budget: int, source: str, others: dict[str, Cell]) -> Cell:
    verb = defence.id.split(".")[-2]
    version = method_class(verb, defence.id).card.version
    scan = others[defence.scan] if defence.scan else None
    params = parameters(verb, defence.id, defence.set)
    return Cell(model, name, defence, version, params, budget, source, scan)
