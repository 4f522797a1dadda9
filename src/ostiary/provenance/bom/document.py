"""A BOM as it is read: CycloneDX in JSON, from anybody."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ostiary.provenance import strict
from ostiary.provenance.bom.schema import VERSIONS, violations
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import is_digest

PREDICATE = "https://cyclonedx.org/bom"
"""The type under which a BOM is signed as an in-toto statement."""
ROOT = "ostiary:root"
"""The property of a component that holds Ostiary's root over its files, or over its samples."""
DIGEST = "ostiary:digest"
"""The property of a data set that holds the digest which ostiary's records have of it."""
MODEL = "machine-learning-model"
"""The type of a component that is a model."""
MAX_BOM = 64 * 2**20
MAX_DEPTH = 64
"""Levels of JSON: the deepest that is made here has 16, and the checks recurse."""

Component = Mapping[str, Any]


@dataclass(frozen=True)
class Bom:
    """A document that the schema of its version allows; `sha256` is that of its bytes."""

    value: Mapping[str, Any]
    sha256: str

    @property
    def version(self) -> str:
        """Of CycloneDX."""
        return str(self.value["specVersion"])

    @cached_property
    def components(self) -> tuple[tuple[str, Component], ...]:
        """Every component with its JSON pointer: the subject first, then those listed, parts and ancestors inside."""
        tops = [("/metadata/component", self.value.get("metadata", {}).get("component"))]
        tops += [(f"/components/{i}", one) for i, one in enumerate(self.value.get("components", []))]
        return tuple(inner for pointer, one in tops if one for inner in _inside(pointer, one))

    @cached_property
    def models(self) -> tuple[tuple[str, Component], ...]:
        """The models that the BOM is about, with their pointers: its subject, else every one that it lists."""
        found = [(p, one) for p, one in self.components if one["type"] == MODEL]
        subject = [(p, one) for p, one in found if p == "/metadata/component"]
        return tuple(subject or [(p, one) for p, one in found if p.count("/") == 2])

    @cached_property
    def data_sets(self) -> tuple[tuple[str, Component], ...]:
        """The components that are data, with their pointers."""
        return tuple((p, one) for p, one in self.components if one["type"] == "data")


def read_bom(data: bytes, where: str = "bom") -> Bom:
    """The BOM in a file of CycloneDX JSON 1.6 or 1.7.

    Raises Refused: too large or too deep (OS720), JSON that two readers could take for two things (OS721, OS722), no
    CycloneDX of these versions (OS788), what the official schema does not allow (OS789).
    """
    value = strict.parse(data, where, limit=MAX_BOM)
    if not isinstance(value, dict) or value.get("bomFormat") != "CycloneDX":
        raise Refused([Reason("OS788", where, "it is no BOM of CycloneDX in JSON")])
    if (version := value.get("specVersion")) not in VERSIONS:
        raise Refused([Reason("OS788", where, f"CycloneDX {str(version)[:20]!r} is not read, only 1.6 and 1.7")])
    if (odd := _unreadable(value)) is not None:
        raise Refused([Reason(odd[0], where, odd[1])])
    if wrong := violations(value, version):
        raise Refused([Reason("OS789", where, text) for text in wrong])
    return Bom(value, hashlib.sha256(data).hexdigest())


def prop(part: Component, name: str) -> str | None:
    """The value of the first property of that name; None without one."""
    return next((one.get("value", "") for one in part.get("properties", []) if one["name"] == name), None)


def bom_roots(bom: Bom) -> tuple[str, ...]:
    """Ostiary's root of each model that the BOM is about; empty where another tool wrote it without one."""
    found = (prop(one, ROOT) for _, one in bom.models)
    return tuple(root for root in found if root is not None and is_digest(root))


def _inside(pointer: str, component: Component) -> Iterator[tuple[str, Component]]:
    yield pointer, component
    parts = [("components", component.get("components", []))]
    pedigree = component.get("pedigree", {})
    parts += [(f"pedigree/{key}", pedigree.get(key, [])) for key in ("ancestors", "descendants", "variants")]
    for key, inner in parts:
        for i, one in enumerate(inner):
            yield from _inside(f"{pointer}/{key}/{i}", one)


def _unreadable(value: Any) -> tuple[str, str] | None:
    """The code and the words for a document that the checks cannot walk or print; None for all others."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(_odd(one) for one in level):
            return "OS721", "it holds a number that is infinite, or text that is no Unicode"
        holders = [one for one in level if isinstance(one, dict | list)]
        if not holders:
            return None
        level = [inner for one in holders for inner in (one.values() if isinstance(one, dict) else one)]
        level += [key for one in holders if isinstance(one, dict) for key in one]
    return "OS720", f"it is nested deeper than {MAX_DEPTH} levels"


def _odd(value: Any) -> bool:
    if isinstance(value, str) and not value.isascii():
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, float) and not math.isfinite(value)
