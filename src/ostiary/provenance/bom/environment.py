"""The Python distributions that are installed, as libraries with what each needs of the others."""

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Library:
    """One distribution: its normalised name, version, licence expression, and the installed ones that it requires."""

    name: str
    version: str
    licence: str | None
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def libraries() -> tuple[Library, ...]:
    """Every installed distribution in order of names, the first of each name, as Python would import it.

    What is required for extras alone is left out.
    """
    found: dict[str, Distribution] = {}
    for one in distributions():
        name = _field(one, "Name")
        if name is not None and NAME.fullmatch(name):
            found.setdefault(_normal(name), one)
    return tuple(_library(name, found[name], frozenset(found)) for name in sorted(found))


def _library(name: str, one: Distribution, installed: frozenset[str]) -> Library:
    needs = {_normal(hit.group()) for text in one.requires or () if (hit := NAME.match(text)) and not _extra(text)}
    return Library(name, one.version, _field(one, "License-Expression"), tuple(sorted((needs & installed) - {name})))


def _field(one: Distribution, key: str) -> str | None:
    return next(iter(one.metadata.get_all(key) or []), None)


def _extra(requirement: str) -> bool:
    return re.search(r";.*\bextra\s*==", requirement) is not None


def _normal(name: str) -> str:
    """As PEP 503 writes names."""
    return re.sub(r"[-_.]+", "-", name).lower()
