"""How much a BOM tells, held against the seven clusters of the G7's "SBOM for AI: Minimum Elements" (May 2026).

The clusters are the paper's. Its elements are taken as its public summaries name them; what a level asks for, the
limitations of a model and the examination for backdoors are ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ostiary.provenance.bom.document import DIGEST, ROOT, Bom, Component, prop
from ostiary.provenance.bom.schema import moment

Level = Literal["minimum", "full"]
LEVELS: tuple[Level, ...] = ("minimum", "full")
SYSTEM, SECURITY, MADE = "ostiary:system/", "ostiary:security/", "ostiary:created"
"""Beginnings of the properties that a card's tables `system` and `security` become; when a model was made."""
HARDWARE = "ostiary:hardware"
"""The property of a training that says what it ran on."""
SECURITY_WORDS = ("attack success", "false-trigger", "robust", "recovered trigger", "false alarm", "score of", "fire")
"""What the names of metrics that speak of security contain, in lower case."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its cluster, its name, whether the level `minimum` asks for it, and where it stands (None: absent).

    `where` is the JSON pointer of the first place; of data sets, all must have it.
    """

    cluster: str
    name: str
    minimum: bool
    where: str | None


@dataclass(frozen=True, slots=True)
class Completeness:
    """Every element of the seven clusters, present or absent."""

    elements: tuple[Element, ...]

    @property
    def level(self) -> Level | None:
        """The highest level whose elements are all there; None below `minimum`."""
        return next((level for level in reversed(LEVELS) if not self.absent(level)), None)

    def absent(self, level: Level) -> tuple[Element, ...]:
        """The elements that a level asks for and that are not there."""
        return tuple(one for one in self.elements if one.where is None and (one.minimum or level == "full"))


def completeness(bom: Bom, *, signed: bool = False, now: datetime | None = None) -> Completeness:
    """Which elements of the seven clusters a BOM has, and where.

    `signed` says that a signature beside the file was verified; evidence that has expired at `now` counts for nothing.
    """
    look = _Look(bom, now or datetime.now(UTC))
    rows = (*_metadata(look, signed), *_system(look), *_models(look), *_data(look))
    return Completeness(
        tuple(Element(*row) for row in (*rows, *_figures(look), *_infrastructure(look), *_security(look)))
    )


Row = tuple[str, str, bool, str | None]


@dataclass(frozen=True, slots=True)
class _Look:
    bom: Bom
    now: datetime

    def first(self, *pointers: str) -> str | None:
        """The first pointer that leads to something that is not empty."""
        return next((pointer for pointer in pointers if self.at(pointer)), None)

    def at(self, pointer: str) -> Any:
        found: Any = self.bom.value
        for part in pointer.split("/")[1:]:
            if isinstance(found, list):
                found = found[int(part)] if int(part) < len(found) else None
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found

    def model(self, *keys: str) -> str | None:
        """The pointer of the first key of the model that is not empty."""
        return self.first(*(f"{pointer}/{key}" for pointer, _ in self.bom.models[:1] for key in keys))

    def model_property(self, name: str) -> str | None:
        return next((f"{p}/properties" for p, one in self.bom.models[:1] if prop(one, name)), None)

    def meta(self, name: str) -> str | None:
        metadata = self.at("/metadata") or {}
        return "/metadata/properties" if prop(metadata, name) else None

    def every_set(self, has: Callable[[str, Component], str | None]) -> str | None:
        """Where the first data set has something, if all have it."""
        found = [has(pointer, one) for pointer, one in self.bom.data_sets]
        return found[0] if found and all(found) else None


def _metadata(look: _Look, signed: bool) -> Sequence[Row]:
    name, tool = "Metadata", "/metadata/tools/components/0"
    needs = [one for one in look.bom.value.get("dependencies", []) if one.get("dependsOn")]
    return (
        (name, "author of the BOM", True, look.first("/metadata/authors", "/metadata/manufacturer")),
        (name, "version of the BOM", True, look.first("/version")),
        (name, "data format", True, look.first("/specVersion")),
        (name, "signature of the author", False, "beside the file" if signed else look.first("/signature")),
        (name, "name of the tool", True, look.first(f"{tool}/name", "/metadata/tools/0/name")),
        (name, "version of the tool", True, look.first(f"{tool}/version", "/metadata/tools/0/version")),
        (name, "generation context", True, look.first("/metadata/lifecycles")),
        (name, "timestamp", True, look.first("/metadata/timestamp")),
        (name, "dependency relationships", False, "/dependencies" if needs else None),
    )


def _system(look: _Look) -> Sequence[Row]:
    name, card = "System", "modelCard/considerations/useCases"
    return (
        (name, "name", False, look.meta(f"{SYSTEM}name")),
        (name, "producer", False, look.meta(f"{SYSTEM}producer")),
        (name, "version", False, look.meta(f"{SYSTEM}version")),
        (name, "components", False, look.first("/components")),
        (name, "timestamp", False, look.meta(f"{SYSTEM}timestamp")),
        (name, "data flow", False, look.meta(f"{SYSTEM}data-flow")),
        (name, "data usage", False, look.meta(f"{SYSTEM}data-usage")),
        (name, "input and output", False, _both(look, "inputs", "outputs")),
        (name, "intended application area", False, look.meta(f"{SYSTEM}application-area") or look.model(card)),
    )


def _both(look: _Look, one: str, other: str) -> str | None:
    found = [look.model(f"modelCard/modelParameters/{key}") for key in (one, other)]
    return found[0] if all(found) else None


def _models(look: _Look) -> Sequence[Row]:
    name, card = "Models", "modelCard/modelParameters"
    hashes = look.model("hashes", "components/0/hashes")
    how = look.model(f"{card}/modelArchitecture", f"{card}/architectureFamily", f"{card}/task")
    return (
        (name, "name", True, look.model("name")),
        (name, "identifier", True, look.model_property(ROOT) or look.model("purl", "swhid", "omniborId", "cpe")),
        (name, "version", False, look.model("version")),
        (name, "producer", True, look.model("supplier", "manufacturer", "authors", "publisher")),
        (name, "description", False, look.model("description")),
        (name, "timestamp", False, look.model_property(MADE)),
        (name, "hash value", True, hashes),
        (name, "hash algorithm", True, hashes),
        (name, "properties", False, how),
        (name, "how the weights were made", False, look.first("/formulation") or look.model(f"{card}/approach")),
        (name, "limitations", False, look.model("modelCard/considerations/technicalLimitations")),
        (name, "licence", True, look.model("licenses")),
        (name, "external references", False, look.model("externalReferences")),
    )


def _data(look: _Look) -> Sequence[Row]:
    name = "Data sets"

    def inside(key: str) -> str | None:
        return look.every_set(lambda pointer, one: look.first(f"{pointer}/data/0/{key}"))

    return (
        (name, "name", True, look.every_set(lambda pointer, one: f"{pointer}/name")),
        (name, "identifier", True, look.every_set(_identified)),
        (name, "contents", False, inside("description") or inside("contents/url")),
        (name, "provenance", False, inside("governance")),
        (name, "sensitivity", False, inside("classification") or inside("sensitiveData")),
        (name, "licence", False, look.every_set(lambda pointer, one: look.first(f"{pointer}/licenses"))),
    )


def _identified(pointer: str, one: Component) -> str | None:
    if prop(one, ROOT) or prop(one, DIGEST):
        return f"{pointer}/properties"
    return f"{pointer}/hashes" if one.get("hashes") else None


def _figures(look: _Look) -> Sequence[Row]:
    place = "modelCard/quantitativeAnalysis/performanceMetrics"
    pointer = look.model(place)
    names = [str(one.get("type", "")).lower() for one in (look.at(pointer) if pointer else [])]
    about = [any(word in text for word in SECURITY_WORDS) for text in names]
    return (
        ("Key figures", "operational performance", False, pointer if not all(about) else None),
        ("Key figures", "security metrics", False, f"{pointer}/{about.index(True)}" if any(about) else None),
    )


def _infrastructure(look: _Look) -> Sequence[Row]:
    kinds = [(pointer, one["type"]) for pointer, one in look.bom.components]
    software = next((pointer for pointer, kind in kinds if kind in ("library", "framework", "platform")), None)
    hardware = next((pointer for pointer, kind in kinds if kind in ("device", "firmware")), None)
    flows = [
        (f"/formulation/{i}/workflows/{j}", flow)
        for i, formula in enumerate(look.bom.value.get("formulation", []))
        for j, flow in enumerate(formula.get("workflows", []))
    ]
    ran_on = next((pointer for pointer, flow in flows if prop(flow, HARDWARE)), None)
    return (
        ("Infrastructure", "software", False, software or look.first("/formulation/0/components")),
        ("Infrastructure", "hardware", False, hardware or ran_on),
    )


def _security(look: _Look) -> Sequence[Row]:
    name = "Security"
    return (
        (name, "security controls", False, look.meta(f"{SECURITY}controls")),
        (
            name,
            "security compliance",
            False,
            look.meta(f"{SECURITY}compliance") or look.first("/definitions/standards"),
        ),
        (name, "security policy", False, look.meta(f"{SECURITY}policy")),
        (name, "reference to vulnerabilities", False, look.meta(f"{SECURITY}vulnerabilities") or _advisories(look)),
        (name, "examination for backdoors", True, _examined(look)),
    )


def _advisories(look: _Look) -> str | None:
    if found := look.first("/vulnerabilities"):
        return found
    places = [(p, one.get("externalReferences", [])) for p, one in look.bom.models[:1]]
    kinds = ("advisories", "vulnerability-assertion", "exploitability-statement")
    return next((f"{p}/externalReferences" for p, refs in places if any(r["type"] in kinds for r in refs)), None)


def _examined(look: _Look) -> str | None:
    """Evidence that a claim about the model rests on, with an expiry that has not passed."""
    evidence = look.at("/declarations/evidence") or []
    fresh = {}
    for i, one in enumerate(evidence):
        expires = moment(one.get("expires"))
        if expires is not None and expires > look.now:
            fresh[one.get("bom-ref")] = f"/declarations/evidence/{i}"
    about = {one.get("bom-ref") for _, one in look.bom.models}
    used = [
        ref
        for claim in look.at("/declarations/claims") or []
        if claim.get("target") in about
        for ref in (*claim.get("evidence", []), *claim.get("counterEvidence", []))
    ]
    return next((fresh[ref] for ref in used if ref in fresh), None)
