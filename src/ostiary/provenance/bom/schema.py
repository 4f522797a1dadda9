"""What a document violates in the official JSON schemas of CycloneDX 1.6 and 1.7, which come with the package."""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT7

VERSIONS = ("1.6", "1.7")
SHOWN = 10
"""Violations that are told; a document of another kind has thousands."""
_FOLDER = Path(__file__).parent / "schemas"
_BESIDE = ("spdx", "jsf-0.82", "cryptography-defs")
_FORMATS = FormatChecker(formats=())


def violations(document: Any, version: str) -> list[str]:
    """The first violations of the schema of a version, each as a JSON pointer and what is wrong there.

    The schemas' formats are not checked but for dates and times, which must have a time zone.
    """
    return [_told(error) for error in islice(_validator(version).iter_errors(document), SHOWN)]


@cache
def licence_ids() -> frozenset[str]:
    """The ids of the SPDX licence list that the schemas allow."""
    return frozenset(_read("spdx")["enum"])


def moment(text: object) -> datetime | None:
    """The moment that a text tells with its time zone, as RFC 3339 asks for; None for any other text."""
    if not isinstance(text, str) or "T" not in text.upper():
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or moment(value) is not None


_FORMATS.checks("date-time")(_is_moment)


def _unique(validator: Any, unique: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    """As the library's own check, which compares each with each: a BOM of 20,000 files would take it hours."""
    if unique and isinstance(value, list) and len({json.dumps(one, sort_keys=True) for one in value}) < len(value):
        yield ValidationError("an item stands twice")


@cache
def _validator(version: str) -> Any:
    registry: Any = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{_name(one)}", DRAFT7.create_resource(_read(one))) for one in _BESIDE
    )
    kind: Any = validators.extend(Draft7Validator, {"uniqueItems": _unique})
    return kind(_read(f"bom-{version}"), registry=registry, format_checker=_FORMATS)


def _name(schema: str) -> str:
    return f"{schema}.SNAPSHOT.schema.json"


def _read(schema: str) -> Any:
    return json.loads((_FOLDER / _name(schema)).read_bytes())


def _told(error: ValidationError) -> str:
    # Of alternatives, the branch that went furthest says what is wrong; the rest only that none fits.
    while error.context:
        error = max(error.context, key=lambda one: len(one.absolute_path))
    pointer = "".join(f"/{part}" for part in error.absolute_path)
    return f"{pointer[:200] or '/'}: {error.message[:200]}"
