"""Samples of tables: Parquet with images as Hugging Face writes it, and rows of text; read as a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ostiary.core.columns import IMAGE_COLUMNS, LABEL, TEXT, class_names, image_column, listed
from ostiary.core.errors import DataError, FormatError
from ostiary.provenance.samples.leaf import Kind, Sample, content_of_bytes, content_of_talk
from ostiary.provenance.samples.pictures import check_picture

READ_ROWS = 256
"""Rows of images that are read at a time."""
UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what, where a description of the set says so; None: by the names that are known.

    `source` is the column of the sources, whoever names it.
    """

    content: str | None = None
    label: str | None = None
    id: str | None = None
    source: str | None = None


def has_images(path: Path) -> bool:
    """Whether a Parquet file holds images. Raises FormatError when it cannot be read."""
    try:
        return bool(set(IMAGE_COLUMNS) & set(pq.read_schema(path).names))
    except UNREADABLE as error:
        raise FormatError(f"{path.name}: not a readable Parquet file ({error})") from error


def image_samples(path: Path, columns: Columns, source: str | None) -> Iterator[Sample]:
    """The samples of a Parquet file with images, whose bytes count as stored.

    Labels are the names of their classes where the file has them; without a label column, and in rows where it holds
    nothing, samples have none. Ids are those of a column `id` of text, else `<file stem>:<row>`. Raises FormatError
    for a damaged file or image, DataError for columns that are missing or hold something else.
    """
    try:
        # Buffered, so that a column chunk is read a page at a time and not as a whole.
        file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        yield from _image_rows(file, path, columns, source)
    except UNREADABLE as error:
        raise FormatError(f"{path.name}: not a readable Parquet file ({error})") from error


def text_samples(path: Path, columns: Columns, source: str | None, stem: str | None) -> Iterator[Sample]:
    """The samples of a file of texts: Parquet, JSON lines, CSV, also through gzip.

    A text counts as its UTF-8 bytes, and what continues it after a line end; a talk as prompt and answer, without a
    label. Ids are those of a column `id`, else `row-<number>`, or `<stem>:<row>` from 0 with a `stem`. Raises
    FormatError for a damaged file, DataError for the first row that cannot be read: nothing is left out.
    """
    from ostiary.data.text_files import DAMAGED, opened_rows

    also = [name for name in (columns.content, columns.label, columns.id, columns.source) if name]
    try:
        names = class_names(pq.read_schema(path), path.name) if path.suffix == ".parquet" else None
        with opened_rows(path, also) as rows:
            read: _Read | None = None
            for number, row in rows:
                at = f"{path.name}: row {number}"
                if isinstance(row, str):
                    raise DataError(f"{at}: {row}", hint="repair or remove it")
                read = read or _text_reader(row, columns, names, source, at)
                yield read(row, f"row-{number}" if stem is None else f"{stem}:{number - 1}", at)
    except DAMAGED as error:
        raise FormatError(f"{path.name}: cannot be read ({error})") from error


def kind_of_texts(path: Path, columns: Columns) -> Kind:
    """Whether a file holds texts or talks, by its first row. Raises as `text_samples`."""
    from ostiary.data.text_files import DAMAGED, BadRow, opened_rows, row_reader

    if columns.content:
        return "text"
    try:
        with opened_rows(path) as rows:
            first = next((row for _, row in rows), None)
        if not isinstance(first, dict):
            raise DataError(f"{path.name}: row 1: {first or 'there is none'}")
        return "talk" if row_reader(first, None)[0] == "chat" else "text"
    except BadRow:
        return "text"
    except DAMAGED as error:
        raise FormatError(f"{path.name}: cannot be read ({error})") from error


_Read = Callable[[dict[str, Any], str, str], Sample]
"""What makes a sample of a row, the id that it has where it states none, and where it stands."""


def _image_rows(file: pq.ParquetFile, path: Path, columns: Columns, source: str | None) -> Iterator[Sample]:
    schema, where = file.schema_arrow, path.name
    content = image_column(schema, where) if columns.content is None else _bytes_column(schema, columns.content, where)
    label = _label_column(schema, columns.label, where)
    names = class_names(schema, where)
    identity = columns.id or ("id" if "id" in schema.names and _is_text(schema.field("id").type) else None)
    chosen = {"content": content, "label": label, "id": identity, "source": columns.source}
    for name in (columns.id, columns.source):
        if name is not None and name not in schema.names:
            raise DataError(f"{where}: no column '{name}' among {listed(schema)}")
    wanted = [name for name in dict.fromkeys(chosen.values()) if name]
    count, row = file.metadata.num_rows, 0
    for batch in file.iter_batches(batch_size=READ_ROWS, columns=wanted, use_threads=False):
        table = pa.Table.from_batches([batch]).flatten()
        values = {key: table.column(name).to_pylist() if name else [None] * len(batch) for key, name in chosen.items()}
        for data, mark, own, origin in zip(*values.values(), strict=True):
            at = f"{where}: row {row}"
            if not isinstance(data, bytes):
                raise DataError(f"{at} has no image bytes", hint="embed the images in the file, not their paths")
            name = _told(own, at, identity) if identity else f"{path.stem}:{row}"
            origin_ = _told(origin, at, columns.source) if columns.source else source
            digest = content_of_bytes(check_picture(data, at))
            yield Sample(name, digest, _label(mark, names, at), origin_)
            row += 1
    if row != count:
        raise FormatError(f"{where}: holds {row} rows where {count} were announced")


def _text_reader(
    first: dict[str, Any], columns: Columns, names: Sequence[str] | None, source: str | None, where: str
) -> _Read:
    """How to read all rows, by the columns of the first."""
    from ostiary.data.text_files import BadRow, joined, row_id, row_reader

    content = columns.content
    label = columns.label or next((name for name in LABEL if name in first), None)
    missing = [name for name in (content, columns.label, columns.id, columns.source) if name and name not in first]
    if missing:
        raise DataError(f"{where}: no column '{missing[0]}'")
    talk = None
    if content is None:
        try:
            task, pair = row_reader(first, None)
            talk = pair if task == "chat" else None
        except BadRow as error:
            if not any(name in first for name in TEXT):
                raise DataError(f"{where}: {error}") from error
        content = next((name for name in TEXT if name in first), "")

    def read(row: dict[str, Any], usual: str, at: str) -> Sample:
        try:
            if talk is not None:
                digest, mark = content_of_talk(*talk(row)), None
            else:
                digest = content_of_bytes(joined(row, content).encode())
                mark = _label(row.get(label) if label else None, names, at)
        except BadRow as error:
            raise DataError(f"{at}: {error}", hint="repair or remove it") from error
        name = _told(row.get(columns.id), at, columns.id) if columns.id else row_id(row) or usual
        origin = _told(row.get(columns.source), at, columns.source) if columns.source else source
        return Sample(name, digest, mark, origin)

    return read


def _label(value: Any, names: Sequence[str] | None, where: str) -> str | None:
    """A label as text: the name of its class where there are names; None for none."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: its label is {type(value).__name__}, no integer or name")
    if names is None:
        return str(value)
    if not 0 <= value < len(names):
        raise DataError(f"{where}: its label {value} is outside 0..{len(names) - 1}")
    return names[value]


def _told(value: Any, where: str, column: str | None) -> str:
    """The text of an id or a source."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: its '{column}' is no text")
    return str(value)


def _bytes_column(schema: pa.Schema, name: str, where: str) -> str:
    kind = schema.field(name).type if name in schema.names else None
    if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        name, kind = f"{name}.bytes", kind.field("bytes").type
    if kind is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{where}: column '{name}' holds no encoded images")
    return name


def _label_column(schema: pa.Schema, name: str | None, where: str) -> str | None:
    if name is not None and name not in schema.names:
        raise DataError(f"{where}: no column '{name}' among {listed(schema)}")
    return name or next((one for one in LABEL if one in schema.names), None)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
