"""What differs between two BOMs: parts by what they are called, not by where they stand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ostiary.provenance import strict
from ostiary.provenance.bom.document import MODEL, Bom

Kind = Literal["added", "removed", "altered"]
SHOWN = 200
NAMES = ("bom-ref", "name", "ref", "type", "alg", "id", "url")
"""Fields by which the parts of a list are told apart, the first that all of them have."""
OF_THE_FILE = ("/serialNumber", "/metadata/timestamp")
"""What differs between any two BOMs, and says nothing of the model."""
SECTIONS = (
    ("licenses", "licences"),
    ("hashes", "hashes"),
    ("performanceMetrics", "metrics"),
    ("declarations", "verdicts"),
    ("formulation", "training"),
    ("pedigree", "ancestors"),
    ("dependencies", "dependencies"),
)
"""What a difference is about, by the first of these keys on the way to it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what it is about, where, and the texts before and after (None: absent)."""

    section: str
    kind: Kind
    where: str
    before: str | None
    after: str | None


def diff(old: Bom, new: Bom) -> tuple[Change, ...]:
    """Every difference but of the serial number and the time, in order of sections and places."""
    found = _compared(old.value, new.value, ())
    kinds = {one.get("bom-ref"): one["type"] for bom in (old, new) for _, one in bom.components}
    changes = [
        Change(_section(path, kinds), "added" if a is None else "removed" if b is None else "altered", where, a, b)
        for path, a, b in found
        if (where := "".join(f"/{part}" for part in path)) not in OF_THE_FILE
    ]
    return tuple(sorted(changes, key=lambda one: (one.section, one.where)))


Found = tuple[tuple[str, ...], str | None, str | None]


def _compared(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[Found]:
    if isinstance(old, list) and isinstance(new, list):
        old, new = _by_name(old, new)
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield path, _text(old), _text(new)
        return
    for key in sorted({*old, *new}):
        if isinstance(old.get(key, new.get(key)), list) and (old.get(key) or new.get(key)):
            # A list that is not there has no parts: each that came or went is told by its name and under its section.
            yield from _compared(old.get(key, []), new.get(key, []), (*path, key))
        elif key not in old or key not in new:
            yield (*path, key), _text(old[key]) if key in old else None, _text(new[key]) if key in new else None
        else:
            yield from _compared(old[key], new[key], (*path, key))


def _by_name(old: list[Any], new: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = [*old, *new]
    named = all(isinstance(one, dict) for one in parts)
    key = next((key for key in NAMES if named and all(isinstance(one.get(key), str) for one in parts)), None)
    return _keyed(old, key), _keyed(new, key)


def _keyed(parts: list[Any], key: str | None) -> dict[str, Any]:
    """The parts by name, with a number where one has the name of an earlier one; values that have no name by text."""
    found: dict[str, Any] = {}
    for one in parts:
        if key is None:
            name = strict.canonical(one).decode(errors="backslashreplace") if isinstance(one, dict | list) else str(one)
        else:
            name = f"{one[key]} ({one['slice']})" if isinstance(one.get("slice"), str) else one[key]
        count = 1
        unique = name
        while unique in found:
            count += 1
            unique = f"{name} #{count}"
        found[unique] = one
    return found


def _section(path: tuple[str, ...], kinds: Mapping[Any, str]) -> str:
    if section := next((name for key, name in SECTIONS if key in path), None):
        return section
    types = [kinds[part] for part in path if part in kinds]
    if types and types[-1] != MODEL:
        return {"data": "data sets", "file": "files", "library": "libraries"}.get(types[-1], "components")
    return "model" if path[:2] == ("metadata", "component") else "other"


def _text(value: Any) -> str:
    """A value in a few words: a part by its name or its hash, else as JSON."""
    if isinstance(value, str):
        return value[:SHOWN]
    if isinstance(value, dict):
        digests = [str(one.get("content")) for one in value.get("hashes", []) if isinstance(one, dict)]
        named = [str(value[key]) for key in ("name", "version", "value", "content", "description") if key in value]
        if named or digests:
            return " ".join([*named, *digests])[:SHOWN]
    return strict.canonical(value).decode(errors="backslashreplace")[:SHOWN]
