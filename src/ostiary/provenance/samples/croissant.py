"""Sets that Croissant describes (JSON-LD of MLCommons, 1.0 and 1.1): read from local files.

Read are tables in local files, each with a SHA-256 that the file must have. Nothing is fetched, and a file that the
description does not name with its digest is not opened. https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ostiary.core.columns import IMAGE_COLUMNS, LABEL, TEXT
from ostiary.core.errors import DataError, FormatError
from ostiary.core.files import sha256_file
from ostiary.provenance import strict
from ostiary.provenance.files import bad_name, read_small, shown
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.leaf import Sample, odd
from ostiary.provenance.samples.reading import Reading, tables
from ostiary.provenance.samples.tables import Columns
from ostiary.provenance.statement import is_digest

CONFORMS = "http://mlcommons.org/croissant/1."
MAX_DESCRIPTION = 64 * 2**20


def read_croissant(
    path: Path, record_set: str | None, *, source: str | None = None, source_field: str | None = None
) -> Reading:
    """The samples of the record set in a description, which must be named where there are several.

    The content is the one field of images, else of text; the label a field of the type `cr:Label` or called so; the id
    the `key` of the record set. Files are looked for beside the description. Raises FormatError for what is no
    Croissant, DataError for what it describes in another way, Refused for JSON that is ambiguous (OS720 to OS722) and
    for a file whose SHA-256 is not the stated one (OS754).
    """
    found = strict.parse(read_small(path, MAX_DESCRIPTION), path.name, limit=MAX_DESCRIPTION)
    if not isinstance(found, dict) or not any(one.startswith(CONFORMS) for one in _texts(found, "conformsTo")):
        raise FormatError(
            f"'{path}' is no Croissant description of version 1", hint="its `conformsTo` says the version"
        )
    where = path.name
    chosen = _record_set(found, record_set, where)
    columns, distribution = _columns(chosen, where)
    files = [_checked(path.parent, one, where) for one in _files(found, distribution, where)]
    name = _first(found, "name") or path.stem
    title = f"{name}:{_ident(chosen)}" if len(_list(found, "recordSet")) > 1 else name
    reading = tables(files, title, source, source_field, single=len(files) == 1, like=columns)
    return Reading(reading.name, reading.kind, _unchanged(reading.samples, files), reading.files)


def _unchanged(samples: Iterator[Sample], files: Sequence[Path]) -> Iterator[Sample]:
    """The samples, once the files are still those that were digested."""
    before = [(one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    yield from samples
    for file, seen in zip(files, before, strict=True):
        if (file.stat().st_size, file.stat().st_mtime_ns) != seen:
            raise Refused([Reason("OS706", shown(file.name), "it changed while it was read")])


def _record_set(found: Mapping[str, Any], wanted: str | None, where: str) -> dict[str, Any]:
    sets: list[dict[str, Any]] = [
        one for one in _list(found, "recordSet") if _list(one, "field") and not _list(one, "data")
    ]
    names = [_ident(one) for one in sets]
    if wanted is None and len(sets) == 1:
        return sets[0]
    if wanted in names:
        return sets[names.index(wanted)]
    listed = ", ".join(ascii(name)[1:-1] for name in names[:8]) or "none"
    if wanted is None:
        raise DataError(f"{where}: its record sets are {listed}", hint=f"name one: {where}#NAME")
    raise DataError(f"{where}: no record set {wanted!a}; there are {listed}")


def _columns(record_set: Mapping[str, Any], where: str) -> tuple[Columns, str]:
    """The columns of a record set, and the file object or file set that they are all in."""
    key = {_reference(one) for one in _list(record_set, "key")}
    images, texts = list[str](), list[str]()
    roles: dict[str, str] = {}
    places = set()
    for field in _list(record_set, "field"):
        name, types = (
            _ident(field).rpartition("/")[2],
            {one.rpartition("/")[2].rpartition(":")[2] for one in _texts(field, "dataType")},
        )
        column, place = _extracted(field)
        if column is None:
            continue
        places.add(place)
        if _ident(field) in key:
            roles["id"] = column
        elif "Label" in types or name in LABEL:
            roles["label"] = column
        elif name == "source":
            roles["source"] = column
        elif "ImageObject" in types or name in IMAGE_COLUMNS:
            images.append(column)
        elif "Text" in types:
            texts.append(column)
    known = [one for one in texts if one in TEXT] or texts
    candidates = images or known
    if len(places) != 1 or len(candidates) != 1:
        raise DataError(
            f"{where}: its fields are of {len(places)} files, with {len(candidates)} columns of images or text",
            hint="a record set is read where all fields are columns of one file object, and one is the content",
        )
    return Columns(content=candidates[0], **roles), places.pop()


def _extracted(field: Mapping[str, Any]) -> tuple[str | None, str]:
    source = _one(field, "source")
    place = _reference(_one(source, "fileObject") or _one(source, "fileSet"))
    return _first(_one(source, "extract"), "column"), place


def _files(found: Mapping[str, Any], wanted: str, where: str) -> list[Mapping[str, Any]]:
    """The file objects that are `wanted`, or, where that is a file set, that its patterns name."""
    objects = [one for one in _list(found, "distribution") if _is(one, "FileObject")]
    sets = [one for one in _list(found, "distribution") if _is(one, "FileSet")]
    chosen = [one for one in objects if _ident(one) == wanted]
    for one in sets:
        if _ident(one) == wanted:
            patterns = _texts(one, "includes")
            chosen = [file for file in objects if any(fnmatch.fnmatchcase(_url(file), p) for p in patterns)]
    if not chosen:
        raise DataError(
            f"{where}: no file objects for {wanted[:80]!a}",
            hint="a file set has no digests: every file must be listed as a file object with its sha256",
        )
    return sorted(chosen, key=_url)


def _checked(root: Path, file: Mapping[str, Any], where: str) -> Path:
    """The file that a file object names, once it has the digest that is stated."""
    name, digest = _url(file), _first(file, "sha256") or ""
    if _list(file, "containedIn"):
        raise DataError(f"{where}: '{shown(name)}' lies in an archive", hint="unpack it and describe its files")
    if "://" in name or bad_name(name) is not None:
        raise DataError(f"{where}: '{shown(name)}' is no file beside it", hint="download it first; nothing is fetched")
    if not is_digest(digest):
        raise DataError(f"{where}: '{shown(name)}' has no sha256", hint="without one its bytes cannot be checked")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where}: '{shown(name)}' leads elsewhere", hint="replace links by the files")
    if not path.is_file():
        raise FormatError(f"{where}: there is no file '{shown(name)}' beside it", hint="download it first")
    if sha256_file(path) != digest:
        raise Refused([Reason("OS754", shown(name), f"its SHA-256 is not the one that {where} states")])
    return path


def _is(value: Mapping[str, Any], kind: str) -> bool:
    return any(one.rpartition(":")[2].rpartition("/")[2] == kind for one in _texts(value, "@type"))


def _ident(value: Mapping[str, Any]) -> str:
    return _first(value, "@id") or _first(value, "name") or ""


def _url(file: Mapping[str, Any]) -> str:
    return (_first(file, "contentUrl") or "").removeprefix("./")


def _reference(value: Any) -> str:
    return _ident(value) if isinstance(value, dict) else value if isinstance(value, str) else ""


def _get(value: Any, key: str) -> Any:
    """What stands under a key, with or without its prefix."""
    if not isinstance(value, dict):
        return None
    return next((value[one] for one in (key, f"cr:{key}", f"dct:{key}", f"sc:{key}") if one in value), None)


def _list(value: Any, key: str) -> list[Any]:
    found = _get(value, key)
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict | str)]


def _one(value: Any, key: str) -> Any:
    return next(iter(_list(value, key)), None)


def _texts(value: Any, key: str) -> list[str]:
    return [_reference(one) for one in _list(value, key)]


def _first(value: Any, key: str) -> str | None:
    return next((one for one in _texts(value, key) if one and odd(one, 4096) is None), None)
