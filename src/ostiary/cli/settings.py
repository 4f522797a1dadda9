"""Settings that may also come from the environment or a file: flag > OSTIARY_* > ostiary.toml > default."""

import difflib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its default, its kind and what it does."""

    default: Any
    kind: type
    help: str


SETTINGS: dict[str, Setting] = {
    "seed": Setting(0, int, "seed of every random choice"),
    "device": Setting("cpu", str, "cpu, cuda or cuda:N"),
    "preset": Setting("standard", str, "quick, standard or thorough"),
    "fail_on": Setting("suspect", str, "lowest level of finding that gives exit code 1: backdoor, suspect or note"),
    "format": Setting("text", str, "what is printed on stdout: text, json, md, sarif or junit"),
    "time_limit": Setting(None, float, "seconds after which methods stop and say what they left out"),
    "color": Setting("auto", str, "auto, always or never"),
    "no_progress": Setting(False, bool, "one line per stage instead of a bar"),
    "quiet": Setting(False, bool, "nothing on stderr but errors"),
    "verbose": Setting(False, bool, "more on stderr"),
    "runs": Setting("ostiary-runs", str, "folder of the kept records"),
    "cache": Setting("~/.cache/ostiary", str, "folder of what models make of whole sets, kept for the next call"),
    "cache_limit": Setting(4.0, float, "GB that the cache may hold; 0 keeps nothing"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A setting's value and where it came from."""

    value: Any
    origin: str


def file_settings(folder: Path | None = None) -> tuple[dict[str, Any], str]:
    """The settings of `ostiary.toml`, else of `[tool.ostiary]` in `pyproject.toml`, with the file's name.

    Raises ConfigError for an unreadable file or an unknown key.
    """
    folder = folder or Path.cwd()
    for name, table in (("ostiary.toml", ()), ("pyproject.toml", ("tool", "ostiary"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read '{name}': {error}") from error
        for key in table:
            values = values.get(key, {}) if isinstance(values, dict) else values
        if not isinstance(values, dict):
            raise ConfigError(f"'{name}': [{'.'.join(table)}] is no table", hint="write it as key = value lines")
        if not values:
            continue
        for key in values:
            _check_key(key, name)
        return {key.replace("-", "_"): _as_kind(key, value, name) for key, value in values.items()}, name
    return {}, ""


def resolve(flags: dict[str, Any], folder: Path | None = None) -> dict[str, Found]:
    """Every setting with its origin; `flags` holds what the command line gave (None: not given)."""
    from_file, name = file_settings(folder)
    found = {}
    for key, setting in SETTINGS.items():
        variable = f"OSTIARY_{key.upper()}"
        if flags.get(key) is not None:
            found[key] = Found(flags[key], "flag")
        elif os.environ.get(variable):
            found[key] = Found(_as_kind(key, os.environ[variable], variable), variable)
        elif key in from_file:
            found[key] = Found(from_file[key], name)
        else:
            found[key] = Found(setting.default, "default")
    return found


def _check_key(key: str, where: str) -> None:
    known = [name.replace("_", "-") for name in SETTINGS]
    if key.replace("_", "-") in known:
        return
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    raise ConfigError(f"'{where}' has the unknown key '{key}'", hint=hint)


CHOICES = {
    "preset": ("quick", "standard", "thorough"),
    "fail_on": ("backdoor", "suspect", "note"),
    "format": ("text", "json", "md", "sarif", "junit"),
    "color": ("auto", "always", "never"),
}


def _as_kind(key: str, value: Any, where: str) -> Any:
    key = key.replace("-", "_")
    kind = SETTINGS[key].kind
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        if kind is bool:
            return value if isinstance(value, bool) else words[str(value).lower()]
        # What a file holds has a type already, and int() would cut 1.5 and take true for 1.
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise TypeError
        converted = kind(value)
        if key == "seed" and converted < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: '{key}' takes {_article(kind)}, not {value!r}") from None
    if key in CHOICES and converted not in CHOICES[key]:
        raise ConfigError(f"{where}: '{key}' takes {', '.join(CHOICES[key])}, not {value!r}")
    return converted


def _article(kind: type) -> str:
    return {int: "a whole number from 0 on", float: "a number", bool: "true or false", str: "text"}[kind]
