"""The settings of a study, as a TOML file says them."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.records import Frozen
from ostiary.federated.admission import Admission
from ostiary.federated.attacks.sight import DataPoison, UpdateAttack
from ostiary.federated.attacks.study import Threat
from ostiary.federated.network import Recipe

HINT = "docs/federated.md shows a whole file"
KINDS = "`ostiary methods --kind client-attack` says what each does"
MAX_BYTES = 2**20
STAMPS = 2
"""Stamped copies that the guard's server trains on."""
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Clients(Frozen):
    """Who trains: how many, on samples shared out alike or by Dirichlet (`alpha`), and how."""

    number: Annotated[int, Field(ge=2)] = 20
    alpha: Positive | None = None
    epochs: Count = 2
    batch: Count = 32
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9

    def recipe(self, epochs: int | None = None) -> Recipe:
        """Local training; `epochs` in place of their own."""
        return Recipe(epochs=epochs or self.epochs, batch=self.batch, lr=self.lr, momentum=self.momentum)


class ServerPart(Frozen):
    """The rule with its parameters, the server's trusted samples with stamped copies of each, and admission.

    Without a number of copies the guard gets two, other rules none: their papers have none.
    """

    rule: str = "guard"
    set: dict[str, Any] = Field(default_factory=dict)
    trusted: Annotated[int, Field(ge=0)] = 100
    stamps: Annotated[int, Field(ge=0)] | None = None
    admission: Admission = Admission()

    def copies(self) -> int:
        """How many stamped copies of each trusted sample the server trains on."""
        return (STAMPS if self.rule == "guard" else 0) if self.stamps is None else self.stamps

    def make_rule(self) -> Any:
        """The rule. Raises ConfigError for an unknown one, or parameters that it has not."""
        return make("aggregate", self.rule, self.set)


class ThreatPart(Frozen):
    """Who attacks, how and when: `poison` for the data, `updates` for the training, `set` their parameters by name."""

    number: Count = 4
    poison: str = "badnets"
    updates: tuple[str, ...] = ()
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)
    first: Count = 11
    last: Count = 30
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    epochs: Count = 6

    def threat(self, clients: Clients) -> Threat:
        """The threat. Raises ConfigError for unknown attacks and parameters, and for kinds that are mixed up."""
        if unknown := sorted(set(self.set) - {self.poison, *self.updates}):
            raise ConfigError(f"[threat.set.{unknown[0]}] is for an attack that is not named", hint=HINT)
        poison = make("client-attack", self.poison, self.set.get(self.poison))
        updates = tuple(make("client-attack", name, self.set.get(name)) for name in self.updates)
        if not isinstance(poison, DataPoison):
            raise ConfigError(f"'{self.poison}' poisons no data", hint=KINDS)
        for name, attack in zip(self.updates, updates, strict=True):
            if not isinstance(attack, UpdateAttack):
                raise ConfigError(f"'{name}' changes no training", hint=KINDS)
        return Threat(
            data=poison,
            updates=updates,
            first=self.first,
            last=self.last,
            share=self.share,
            recipe=clients.recipe(self.epochs),
        )


class Settings(Frozen):
    """The whole file: `samples` of the image set `data` are shared out, all where it has fewer.

    `test` samples are kept back, from its test part where it has one; the server's trusted ones are among them.
    """

    data: str = "digits"
    arch: str = "small-cnn-gn"
    width: Count | None = 8
    rounds: Count = 50
    samples: Count | None = 4000
    test: Count = 450
    clients: Clients = Clients()
    server: ServerPart = ServerPart()
    threat: ThreatPart | None = None


def read_settings(path: Path) -> Settings:
    """The settings in a TOML file.

    Raises FormatError for what is no TOML, ConfigError for unknown keys (with a suggestion), values that mean nothing,
    and parts that do not fit together.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FormatError(f"'{path}' is larger than {MAX_BYTES >> 10} KiB", hint=HINT)
        value = tomllib.loads(data.decode())
    except OSError as error:
        raise FormatError(f"cannot read '{path}': {(error.strerror or str(error)).lower()}", hint=HINT) from error
    except ValueError as error:
        raise FormatError(f"'{path}' is no TOML: {error}", hint=HINT) from error
    try:
        found = Settings.model_validate(value)
    except ValidationError as error:
        raise _explained(error, path) from error
    _check(found, path)
    return found


def _check(found: Settings, path: Path) -> None:
    found.server.make_rule()
    if found.server.trusted >= found.test:
        raise ConfigError(
            f"'{path}': all of the {found.test} samples that are kept back are the server's, and none measure",
            hint="raise test, or lower server.trusted",
        )
    threat = found.threat
    if threat is None:
        return
    threat.threat(found.clients)
    if threat.number >= found.clients.number:
        raise ConfigError(
            f"'{path}': {threat.number} of {found.clients.number} clients attack", hint="leave some honest"
        )
    if not threat.first <= threat.last <= found.rounds:
        raise ConfigError(
            f"'{path}': the attack lasts from round {threat.first} to {threat.last} of {found.rounds}",
            hint="correct threat.first, threat.last or rounds",
        )


def _explained(error: ValidationError, path: Path) -> ConfigError:
    """The first mistake, in words."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"]]
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        close = difflib.get_close_matches(where[-1], _keys(where[:-1]), n=1)
        hint = f"did you mean '{close[0]}'?" if close else HINT
        return ConfigError(f"'{path}' has the unknown key '{'.'.join(where)}'", hint=hint)
    return ConfigError(f"'{path}': '{'.'.join(where)}': {first['msg'].lower()}", hint=HINT)


def _keys(where: list[str]) -> list[str]:
    parts: Mapping[str, Any] = {"clients": Clients, "server": ServerPart, "threat": ThreatPart}
    if where == ["server", "admission"]:
        return ["longest", "weigh", "most"]
    return list((parts[where[0]] if where and where[0] in parts else Settings).model_fields)
