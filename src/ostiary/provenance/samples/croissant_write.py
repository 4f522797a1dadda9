"""Describing a set with its manifest as Croissant 1.0 (JSON-LD of MLCommons)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostiary.core.columns import IMAGE_COLUMNS, LABEL, TEXT
from ostiary.core.errors import DataError
from ostiary.core.files import sha256_file
from ostiary.provenance.files import bad_name
from ostiary.provenance.samples.croissant import CONFORMS
from ostiary.provenance.samples.manifest import Summary
from ostiary.provenance.samples.reading import Reading


def described(out: Path, summary: Summary, reading: Reading, manifest: Path) -> dict[str, Any]:
    """The description of a set that goes to `out`: its files and its manifest by SHA-256, its columns, and our root.

    What Croissant asks for and no file can tell (licence, creator, date) is left to whoever publishes it. Sets that are
    no tables, and talks, get no record set: Croissant has no words for them. Raises DataError when a file does not lie
    under the folder of `out`, since a description must not hold paths of one machine.
    """
    objects = [_object(out, one) for one in reading.files]
    distribution = [*objects, _object(out, manifest)]
    value: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": f"{CONFORMS}0",
        "name": summary.head.name,
        "description": f"{summary.head.count} samples; {manifest.name} says what each of them is.",
        "ostiary:samplesRoot": summary.root.hex(),
        "ostiary:samples": summary.head.count,
        "distribution": distribution,
    }
    if columns := _columns(summary, reading):
        place = {"fileObject": {"@id": objects[0]["@id"]}}
        if len(objects) > 1:
            place = {"fileSet": {"@id": "shards"}}
            encoding, names = objects[0]["encodingFormat"], [one["contentUrl"] for one in objects]
            shards = {"@type": "cr:FileSet", "@id": "shards", "encodingFormat": encoding, "includes": names}
            distribution.append(shards)
        value["recordSet"] = [_record_set(columns, place)]
    return value


def _record_set(columns: Mapping[str, str], place: Mapping[str, Any]) -> dict[str, Any]:
    kind = "sc:ImageObject" if columns["content"] in IMAGE_COLUMNS else "sc:Text"
    types: dict[str, Any] = {"content": kind, "label": ["sc:Text", "cr:Label"]}
    names = {role: f"samples/{column if role == 'content' else role}" for role, column in columns.items()}
    fields = [
        {
            "@type": "cr:Field",
            "@id": names[role],
            "name": names[role],
            "dataType": types.get(role, "sc:Text"),
            "source": {**place, "extract": {"column": column}},
        }
        for role, column in columns.items()
    ]
    key = {"key": {"@id": names["id"]}} if "id" in columns else {}
    return {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", **key, "field": fields}


def _columns(summary: Summary, reading: Reading) -> dict[str, str]:
    """Which column of a table holds what; empty for what is no table."""
    if reading.kind not in ("file", "text") or any(one.suffix not in ENCODINGS for one in reading.files):
        return {}
    names = _names(reading.files[0]) if reading.files else []
    known = {
        "id": ("id",),
        "content": IMAGE_COLUMNS if reading.kind == "file" else TEXT,
        "label": LABEL if summary.labels else (),
        "source": (summary.head.sourceField,),
    }
    found = {role: next((one for one in some if one in names), None) for role, some in known.items()}
    return {role: column for role, column in found.items() if column} if found["content"] else {}


def _names(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        # Of numbers no id is made when the file itself is read.
        return [one.name for one in schema if one.name != "id" or pa.types.is_string(one.type)]
    from ostiary.data.text_files import opened_rows

    with opened_rows(path) as rows:
        first = next((row for _, row in rows), None)
    return list(first) if isinstance(first, dict) else []


ENCODINGS = {
    ".parquet": "application/x-parquet",
    ".csv": "text/csv",
    ".tsv": "text/tsv",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
}


def _object(out: Path, file: Path) -> dict[str, Any]:
    name = Path(os.path.relpath(file.resolve(), out.resolve().parent)).as_posix()
    if bad_name(name) is not None:
        raise DataError(
            f"'{file}' does not lie under the folder of '{out}'", hint="write the description beside the data"
        )
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{file.stat().st_size} B",
        "encodingFormat": ENCODINGS.get(file.suffix, "application/octet-stream"),
        "sha256": sha256_file(file),
    }


CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "sc": "https://schema.org/",
    "dct": "http://purl.org/dc/terms/",
    "ostiary": "urn:ostiary:",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "key": "cr:key",
    "recordSet": "cr:recordSet",
    "source": "cr:source",
}
"""The part of the context of Croissant 1.0 that a description written here uses."""
