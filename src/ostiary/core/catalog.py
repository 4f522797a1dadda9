"""Finding methods by id without importing them.

Each package lists its methods in `METHODS: dict[str, str]`, id to `module:Class`. Other
distributions add theirs under the entry-point group `ostiary.methods` (name = id, value =
`module:Class`). Nothing is imported until a method is asked for.
"""

import dataclasses
import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ostiary.core.errors import ConfigError

PACKAGES = {
    "scan": "ostiary.scan",
    "screen": "ostiary.screen",
    "repair": "ostiary.repair",
    "guard": "ostiary.guard",
    "harden": "ostiary.harden",
    "attack": "ostiary.attacks",
    "perturb": "ostiary.perturb",
    "benign": "ostiary.bench.benign",
    "aggregate": "ostiary.federated",
    "client-attack": "ostiary.federated.attacks",
}


@cache
def methods(verb: str) -> dict[str, str]:
    """All ids of a verb with their import strings, ours first; raises ConfigError on a doubled id."""
    found: dict[str, str] = dict(import_module(PACKAGES[verb]).METHODS)
    for point in entry_points(group="ostiary.methods"):
        if point.name.split(".")[-2:-1] != [verb]:
            continue
        if point.name in found:
            raise ConfigError(f"two installed methods carry the id '{point.name}'", hint="uninstall one of them")
        found[point.name] = point.value
    return found


def resolve(verb: str, name: str, *, text: bool = False) -> str:
    """The full id for a full or short name, which with `text` is first that of a method for texts.

    Raises ConfigError with a suggestion.
    """
    known, short_ids = methods(verb), (f"{verb}.{name}", f"text.{verb}.{name}")
    for candidate in (name, *(short_ids[::-1] if text else short_ids)):
        if candidate in known:
            return candidate
    short = {key.removeprefix("text.").removeprefix(f"{verb}.") for key in known}
    close = difflib.get_close_matches(name, [*short, *known], n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(short))}"
    raise ConfigError(f"no {verb} method is called '{name}'", hint=f"{hint} (`ostiary methods` lists all)")


def method_class(verb: str, name: str) -> Any:
    """Import and return the class of a method."""
    module, _, attribute = methods(verb)[resolve(verb, name)].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the method '{name}' cannot be imported: {error}", hint="reinstall what brings it"
        ) from error


def make(verb: str, name: str, params: dict[str, Any] | None = None) -> Any:
    """Build a method with its parameters checked against its fields.

    Raises ConfigError naming an unknown key (with a suggestion) or an ill-typed value.
    """
    cls = method_class(verb, name)
    fields = tuple(field.name for field in dataclasses.fields(cls))
    for key in params or {}:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"its keys: {', '.join(fields) or 'none'}"
            raise ConfigError(f"'{cls.card.name}' has no parameter '{key}'", hint=hint)
    try:
        return TypeAdapter(cls).validate_python(params or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"'{cls.card.name}.{where}': {first['msg'][:1].lower()}{first['msg'][1:]}", hint=f"got {first['input']!r}"
        ) from error
