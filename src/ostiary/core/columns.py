"""How files of data name their parts and columns: what readers of sets share, without torch."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ostiary.core.errors import DataError, NoPart

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CLASSES = 100_000
"""Most classes a set may have; a larger label is taken for damage."""

IMAGE_COLUMNS = ("image", "img")
TEXT = ("text", "sentence", "prompt", "instruction", "question", "query")
INPUT = ("input", "context")
"""Columns that go on with what the text begins, as in instruction sets."""
ANSWER = ("response", "output", "completion", "answer")
TURNS = ("messages", "conversations")
LABEL = ("label", "labels")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")
MAX_ENCODED = 2**28
"""Most bytes one encoded image may have."""

Part = Literal["train", "test"]
PARTS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}


def part_of(name: str) -> Part | None:
    """The part a file or folder name stands for, by its first word."""
    word = re.split(r"[-_.]", name, maxsplit=1)[0]
    return next((part for part, names in PARTS.items() if word in names), None)


def no_part(where: str, part: str) -> NoPart:
    """The error for a source that lacks the part asked for."""
    return NoPart(f"{where}: has no {part} part", hint=f"give the {part} samples as a file or folder of their own")


def choose_shards(files: list[Path], part: Part | None, name: str) -> tuple[list[Path], str]:
    """The files of `part` (None: all), and the name of the set they make. Raises NoPart."""
    if part is None:
        return files, name
    chosen = [one for one in files if part_of(one.stem) == part]
    if chosen:
        return chosen, f"{name}:{part}"
    if part == "test" or any(part_of(one.stem) for one in files):
        raise no_part(name, part)
    return files, name


def part_folder(inside: Sequence[str], part: Part, name: str) -> str | None:
    """The one of the folders `inside` a set that holds `part`; None where they are classes. Raises NoPart."""
    parts = {one: found for one in inside if (found := part_of(one))}
    # A lone "train" among other folders is a class (of vehicles, say); parts come in pairs or alone.
    if parts and (len(set(parts.values())) > 1 or len(parts) == len(inside)):
        chosen = next((one for known in PARTS[part] for one in parts if one == known), None)
        if chosen is None:
            raise no_part(name, part)
        return chosen
    if part == "test":
        raise no_part(name, part)
    return None


def is_line(name: str) -> bool:
    """Whether a record can hold the name: something on one line that UTF-8 can write."""
    try:
        return bool(name.encode()) and not any(c in name for c in "\n\r\0")
    except UnicodeEncodeError:
        return False


def check_classes(classes: Iterable[object], where: str) -> tuple[str, ...]:
    """Class names as a tuple; DataError if one is not a string, or there are none or too many."""
    names = tuple(classes)
    if not 0 < len(names) <= MAX_CLASSES:
        raise DataError(f"{where}: names {len(names)} classes, 1 to {MAX_CLASSES} are allowed")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not is_line(name):
            raise DataError(f"{where}: the name of class {index} is not a line of text: {name!r}")
    return tuple(str(name) for name in names)


def class_names(schema: "pa.Schema", where: str) -> tuple[str, ...] | None:
    """The names of the classes in the metadata that `datasets` writes; None where there are none."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        names: Any = json.loads(raw)["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # features may be stored without class names; labels then number themselves
    return check_classes(names, where) if isinstance(names, list) and names else None


def image_column(schema: "pa.Schema", where: str) -> str:
    """The path of the column that holds the encoded bytes. Raises DataError where there is none."""
    import pyarrow as pa

    name = next((one for one in IMAGE_COLUMNS if one in schema.names), None)
    if name is None:
        if any(one in schema.names for one in TEXT[:2]):
            raise DataError(f"{where}: a set of images is needed, this is text")
        raise DataError(f"{where}: no column 'image' among {listed(schema)}", hint="rename the image column")
    kind = schema.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        name, kind = f"{name}.bytes", kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{where}: column '{name}' holds {kind}, not encoded images")
    return name


def listed(schema: "pa.Schema") -> str:
    """The first columns of a schema, for a message."""
    return ", ".join(repr(name) for name in schema.names[:8])
