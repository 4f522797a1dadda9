"""A grid of experiments, as a TOML file says it.

Data x architecture x attack x rate x seed x defence x trusted budget x source of the trusted data.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ostiary.core.catalog import make, resolve
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.execute import params_of
from ostiary.defend import VERBS
from ostiary.models.zoo import ZOO

MAX_BYTES = 2**20
Role = Literal["develop", "calibrate", "report"]
Source = Literal["same", "shifted"]
ROLES: tuple[Role, ...] = ("develop", "calibrate", "report")
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class Part(BaseModel):
    """Base of all tables of a grid file: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataPart(Part):
    """A data set: `train` and `test` as `open_data` takes them, relative to `$OSTIARY_DATA` or to the grid file.

    `set_aside` images of every class of the part `trusted_from` are kept for trusted sets alone. What
    is left of `train` goes to the pools of the roles develop, calibrate and report (`pools`, in
    images; equal thirds when missing). Every model is trained on `images` images drawn from the pool
    of the grid's role; with `imbalance` the sizes of their classes fall off exponentially, the largest having so many
    times the images of the smallest.
    """

    train: str
    test: str
    images: Count
    set_aside: Count
    trusted_from: Literal["train", "test"] = "train"
    pools: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    imbalance: Annotated[float, Field(ge=1)] = 1.0


class ModelPart(Part):
    """An architecture of the zoo and its width."""

    arch: str
    width: Count | None = None


class RecipePart(Part):
    """How models are trained; the fields of `training.Recipe`."""

    epochs: Count
    batch: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0)] = 0.2
    padding: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class AttackPart(Part):
    """An attack: its id (the table's own name when missing), rates in place of the grid's, parameters.

    `seeds` are those of the grid's seeds whose models are attacked so; all when missing.
    """

    id: str = ""
    seeds: Seeds | None = None
    rates: tuple[Share, ...] | None = None
    set: dict[str, Any] = {}


class BenignPart(Part):
    """A kind of hard-benign model, with parameters, at all of the grid's seeds or at some (`seeds`)."""

    id: str = ""
    seeds: Seeds | None = None
    set: dict[str, Any] = {}


class DefencePart(Part):
    """A defence by its full id; a repair may name the scan (another defence of the grid) that it builds on."""

    id: str
    scan: str | None = None
    set: dict[str, Any] = {}


class Limits(Part):
    """What one job may take: seconds, memory in GiB, torch threads; and the device it computes on."""

    device: str = "cpu"
    timeout: Annotated[float, Field(gt=0)] = 3600.0
    memory_gib: Annotated[float, Field(gt=0)] = 8.0
    threads: Count = 1


class Grid(Part):
    """The whole grid. Models exist for every data x model x seed, attacks and benign kinds on each of them.

    `trusted` lists budgets in images per class, `sources` where they come from: the same distribution
    as the training data, or a poorer camera (see `work.shifted`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    role: Role
    seeds: Seeds
    rates: tuple[Share, ...] = (0.1,)
    trusted: Annotated[tuple[Count, ...], Field(min_length=1)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("same",)
    recipe: RecipePart
    data: Annotated[dict[str, DataPart], Field(min_length=1)]
    model: Annotated[dict[str, ModelPart], Field(min_length=1)]
    attack: dict[str, AttackPart] = {}
    benign: dict[str, BenignPart] = {}
    defence: dict[str, DefencePart] = {}
    limits: Limits = Limits()


def read_grid(path: Path) -> Grid:
    """Read and check a grid file.

    Raises FormatError when it is missing, too large or no TOML; ConfigError for unknown keys, methods
    and parameters (each with a suggestion) and for values out of range.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"'{path}' is larger than {MAX_BYTES >> 20} MiB, too large for a grid")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"cannot read '{path}': {error}", hint="name a grid file, such as benchmarks/grids/*.toml"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"'{path}' is no TOML: {error}") from error
    try:
        grid = Grid.model_validate(document)
    except ValidationError as error:
        raise _explained(error, path) from error
    return _checked(grid, path)


def data_path(name: str, grid_file: Path) -> str:
    """Where a data set of a grid lies: a built-in name, `$OSTIARY_DATA/name`, or beside the grid file."""
    if name == "digits" or os.path.isabs(name):
        return name
    root = os.environ.get("OSTIARY_DATA")
    places = ([Path(root) / name] if root else []) + [grid_file.parent / name]
    for place in places:
        if place.exists():
            return str(place.resolve())
    looked = " nor ".join(f"'{place}'" for place in places)
    hint = "correct the name in the file" if root else "set OSTIARY_DATA to the folder that holds the data sets"
    raise FormatError(f"no data at {looked}", hint=hint)


def _checked(grid: Grid, path: Path) -> Grid:
    """The grid with full ids, once every method and parameter it names is known."""
    for name, model in grid.model.items():
        if model.arch not in ZOO:
            raise ConfigError(
                f"'{path}': [model.{name}] has the unknown architecture '{model.arch}'", hint=_near(model.arch, ZOO)
            )
    attacks, benign, defences = {}, {}, {}
    for name, attack in grid.attack.items():
        full = resolve("attack", attack.id or name)
        _check_seeds(path, f"attack.{name}", attack.seeds, grid)
        _build(path, f"attack.{name}", "attack", full, attack.set)
        attacks[name] = attack.model_copy(update={"id": full})
    for name, kind in grid.benign.items():
        full = resolve("benign", kind.id or name)
        _check_seeds(path, f"benign.{name}", kind.seeds, grid)
        _build(path, f"benign.{name}", "benign", full, kind.set)
        benign[name] = kind.model_copy(update={"id": full})
    for name, defence in grid.defence.items():
        verb = defence.id.split(".")[-2] if "." in defence.id else ""
        if verb not in VERBS:
            raise ConfigError(
                f"'{path}': [defence.{name}] needs a full id, such as scan.neural-cleanse, not '{defence.id}'",
                hint=f"verbs: {', '.join(VERBS)}",
            )
        full = resolve(verb, defence.id)
        _build(path, f"defence.{name}", verb, full, defence.set)
        if defence.scan is not None and not grid.defence.get(defence.scan, defence).id.startswith("scan."):
            raise ConfigError(
                f"'{path}': [defence.{name}] builds on '{defence.scan}', which is no scan of this grid",
                hint=_near(defence.scan, [n for n, d in grid.defence.items() if d.id.startswith("scan.")]),
            )
        defences[name] = defence.model_copy(update={"id": full})
    return grid.model_copy(update={"attack": attacks, "benign": benign, "defence": defences})


def _check_seeds(path: Path, where: str, seeds: Seeds | None, grid: Grid) -> None:
    if strange := sorted(set(seeds or ()) - set(grid.seeds)):
        raise ConfigError(
            f"'{path}': [{where}] names the seed {strange[0]}, which the grid has not",
            hint="add it to the grid's seeds",
        )


def _build(path: Path, where: str, verb: str, full: str, params: dict[str, Any]) -> Any:
    try:
        return make(verb, full, params)
    except ConfigError as error:
        raise ConfigError(f"'{path}': [{where}]: {error}", hint=error.hint) from error


def parameters(verb: str, full: str, params: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a method, those that the grid leaves out included."""
    return params_of(make(verb, full, params))


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


def _explained(error: ValidationError, path: Path) -> ConfigError:
    """The first mistake, in words."""
    # A mistyped key is also a missing one; the first tells more.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        table: Any = Grid
        for part in where[:-1]:
            table = _table(table, part)
        known = list(table.model_fields) if hasattr(table, "model_fields") else []
        return ConfigError(f"'{path}' has the unknown key '{'.'.join(where)}'", hint=_near(where[-1], known))
    return ConfigError(
        f"'{path}': '{'.'.join(where)}': {first['msg'].lower()}", hint="see docs/bench.md for the form of a grid"
    )


def _table(table: Any, part: str) -> Any:
    tables = {
        "recipe": RecipePart,
        "limits": Limits,
        "data": DataPart,
        "model": ModelPart,
        "attack": AttackPart,
        "benign": BenignPart,
        "defence": DefencePart,
    }
    return tables.get(part, table)
