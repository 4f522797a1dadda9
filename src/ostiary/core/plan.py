"""Which methods a run will use: by name, or by a preset."""

from collections.abc import Mapping, Sequence
from typing import Any

from ostiary.core.catalog import make, resolve
from ostiary.core.errors import ConfigError

Preset = dict[str, dict[str, Any]]

PRESETS: dict[str, dict[str, Preset]] = {
    "scan": {
        "quick": {"scan.neural-cleanse": {"steps": 240}},
        "standard": {"scan.neural-cleanse": {}},
        "thorough": {"scan.neural-cleanse": {"steps": 2000}},
    },
    "screen": {
        "quick": {"screen.spectral-signatures": {}},
        "standard": {"screen.activation-clustering": {}, "screen.spectral-signatures": {}},
        "thorough": {"screen.activation-clustering": {"dimensions": 20}, "screen.spectral-signatures": {}},
    },
}

ESTIMATES = {
    "scan": "10 classes of 32x32 on 2 cores: a small CNN takes about 20 s (quick), 30 s (standard), 2 min (thorough); "
    "a ResNet-18 of width 64 about 20 min, 40 min, 3 h",
    "screen": "one forward pass over the data, then seconds per class, with every preset",
}


def parse_sets(items: Sequence[str]) -> dict[str, dict[str, str]]:
    """`ID.key=value` items by method; raises ConfigError for another form."""
    found: dict[str, dict[str, str]] = {}
    for item in items:
        left, equals, value = item.partition("=")
        method, dot, key = left.rpartition(".")
        if not (equals and dot and method and key):
            raise ConfigError(f"--set takes ID.key=value, not '{item}'", hint="for example neural-cleanse.steps=300")
        found.setdefault(method, {})[key] = value
    return found


def plan(
    verb: str,
    *,
    methods: Sequence[str] = (),
    preset: str = "standard",
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Any]:
    """The methods to run, built with their parameters; methods asked for by name replace the preset.

    Raises ConfigError for an unknown method, parameter or preset, and for parameters of a method
    that is not in the plan.
    """
    if preset not in PRESETS[verb]:
        raise ConfigError(f"no preset '{preset}'", hint=f"presets: {', '.join(PRESETS[verb])}")
    wanted = {resolve(verb, name): {} for name in methods} if methods else PRESETS[verb][preset]
    extra = {resolve(verb, name): dict(values) for name, values in (params or {}).items()}
    for name in extra:
        if name not in wanted:
            raise ConfigError(f"'{name}' has parameters but is not in the plan", hint=f"add --method {name}")
    return [make(verb, name, {**given, **extra.get(name, {})}) for name, given in wanted.items()]
