"""Reading sets of texts: JSON lines, CSV and Parquet, also through gzip; damaged rows are counted and left out."""

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ostiary.core.columns import ANSWER, IMAGE_COLUMNS, INPUT, LABEL, TEXT, TURNS, class_names
from ostiary.core.errors import DataError, FormatError
from ostiary.data.base import check_labels
from ostiary.data.parquet import UNREADABLE
from ostiary.data.texts import TOLD, UNTOLD, Damage, Task, TextSet

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")
MAX_ROW = 4 * 2**20
"""Most bytes a row may have."""
MAX_BYTES = 8 * 2**30
"""Most bytes a file may unpack to."""
DAMAGED = (*UNREADABLE, EOFError, zlib.error)
"""What is raised while a file is read that is damaged."""

WANTED = ("a row has a text, and a label or an answer", "a row has a text")
"""What a file lacks of which no row can be used, and one whose texts a model is only asked of."""
Columns = dict[str, Any]


class BadRow(Exception):
    """A row that cannot be read, with what is wrong with it."""


def is_texts(path: Path) -> bool:
    """True for a file that holds texts, by its name or, where it is Parquet, by its columns."""
    suffixes = [one for one in path.suffixes if one != ".gz"]
    if suffixes and suffixes[-1] in SUFFIXES:
        return True
    if path.suffix != ".parquet":
        return False
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False  # the reader of images says what is wrong with it
    return not set(IMAGE_COLUMNS) & set(names) and any(name in names for name in (*TEXT, *TURNS))


def open_texts(path: Path, task: Task | None = None) -> TextSet:
    """The set of texts in a file.

    A row's text is in a column `text`, `sentence`, `prompt`, `instruction` (with `input`) or `question`, its label in
    `label`, its answer in `response`, `output`, `completion` or `answer`; or `messages` hold turns of a talk, of which
    the last one is the answer. What has labels is for a classifier, what has answers for a chat; `task` decides where
    a file has both, and to `ask` a model of them texts alone will do. Rows that cannot be read (broken UTF-8 or JSON,
    no text, larger than 4 MB, in CSV a stray quote, fields too many or too few) are left out and counted in the set's
    `damage`.

    Raises FormatError for a file that cannot be read at all, DataError where no row can be used.
    """
    where = path.name
    try:
        names = class_names(pq.read_schema(path), where) if path.suffix == ".parquet" else None
        with opened_rows(path) as rows:
            return _collect(rows, where, task, names)
    except DAMAGED as error:
        raise FormatError(f"{where}: cannot be read ({error})") from error


@contextmanager
def opened_rows(path: Path, also: Sequence[str] = ()) -> Iterator[Iterable["Row"]]:
    """The rows of a file of texts, one after the other; of Parquet only the known columns and those named in `also`.

    Raises one of `DAMAGED`, now or while rows are taken, for a file that cannot be read.
    """
    if path.suffix == ".parquet":
        yield _parquet_rows(path, also)
        return
    kind = [one for one in path.suffixes if one != ".gz"][-1]
    comma = {".csv": ",", ".tsv": "\t"}.get(kind)
    with _opened(path) as stream, closing(_json_rows(stream) if comma is None else _csv_rows(stream, comma)) as rows:
        yield rows


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


Row = tuple[int, Columns | str]
"""A row's number, from 1, and its columns, or what is wrong with it."""


def _json_rows(stream: IO[bytes]) -> Generator[Row, None, None]:
    for number, line in _lines(stream):
        if isinstance(line, str):
            yield number, line
        elif line.strip():
            yield number, _parsed(line)


def _lines(stream: IO[bytes]) -> Iterable[tuple[int, bytes | str]]:
    """Lines of bounded length; what is longer is read past and named."""
    total = number = 0
    while line := stream.readline(MAX_ROW + 1):
        number += 1
        total += len(line)
        long = len(line) > MAX_ROW
        while len(line) > MAX_ROW and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW + 1)
            total += len(line)
        if total > MAX_BYTES:
            raise OSError(f"it unpacks to more than {MAX_BYTES} bytes")
        yield number, f"it is longer than {MAX_ROW} bytes" if long else line


def _parsed(line: bytes) -> Columns | str:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except (ValueError, RecursionError):
        return "it is not JSON"
    return value if isinstance(value, dict) else "it is no JSON object"


def _csv_rows(stream: IO[bytes], comma: str) -> Generator[Row, None, None]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    usual = csv.field_size_limit(MAX_ROW)
    try:
        records = _records(text, comma)
        names = next(records, [])
        if isinstance(names, str):
            raise OSError(f"its first line: {names}")
        for number, found in enumerate(records, 1):
            if isinstance(found, str):
                yield number, found
            elif len(found) != len(names):
                yield number, f"its fields are {len(found)}, the first line names {len(names)}"
            else:
                whole = all(map(_is_whole, found))
                yield number, dict(zip(names, found, strict=True)) if whole else "it is not UTF-8"
    finally:
        csv.field_size_limit(usual)
        text.detach()  # the caller closes what it opened


def _records(text: IO[str], comma: str) -> Generator[list[str] | str, None, None]:
    """The fields of each record, or what is wrong with a line; blank lines are left out.

    A stray quote swallows lines up to the next one. What runs over several lines and is no record by the letter, with
    the fields of the first, costs its first line alone: reading goes on with the second.
    """
    again: deque[str] = deque()
    width = 0
    while True:
        taken: list[str] = []
        try:
            found = next(csv.reader(_noted(text, again, taken), delimiter=comma), None)
            if found is None:
                return
            if len(taken) > 1:
                next(csv.reader(taken, delimiter=comma, strict=True))
                if width not in (0, len(found)):
                    raise csv.Error(f"{len(found)} fields over {len(taken)} lines, the first line names {width}")
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield f"it is no CSV ({error})"
            continue
        if found:
            width = width or len(found)
            yield found


def _noted(text: IO[str], again: deque[str], taken: list[str]) -> Iterator[str]:
    """Lines that are to be read again, then those of the file, each noted in `taken`."""
    while line := again.popleft() if again else text.readline():
        taken.append(line)
        yield line


def _is_whole(text: str) -> bool:
    """Whether UTF-8 can write it: no half of a character, as a JSON escape or a broken byte leaves one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet_rows(path: Path, also: Sequence[str]) -> Iterable[Row]:
    file = pq.ParquetFile(path)
    wanted = {*TEXT, *INPUT, *ANSWER, *TURNS, *LABEL, "id", *also}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    number = 0
    for batch in file.iter_batches(batch_size=4096, columns=columns, use_threads=False):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _collect(rows: Iterable[Row], where: str, task: Task | None, names: tuple[str, ...] | None = None) -> TextSet:
    """The set that rows make; `names` are those of the classes, where the file has them."""
    texts: list[str] = []
    values: list[Any] = []
    ids: list[str] = []
    count, first, size = 0, list[str](), 0
    read: Callable[[Columns], tuple[str, Any]] | None = None
    for number, row in rows:
        try:
            if isinstance(row, str):
                raise BadRow(row)
            if read is None:
                task, read = row_reader(row, task)
            text, value = read(row)
        except BadRow as error:
            count += 1
            if len(first) < TOLD:
                first.append(f"row {number}: {error}")
            continue
        size += len(text) + len(str(value))
        if size > MAX_BYTES:
            raise OSError(f"it unpacks to more than {MAX_BYTES} bytes")
        texts.append(text)
        values.append(value)
        ids.append(row_id(row) or f"row-{number}")
    if not texts:
        said = f": {first[0]}" if first else ""
        raise DataError(f"{where}: no row can be used{said}", hint=WANTED[task == "ask"])
    if len(set(ids)) != len(ids):
        ids = [f"row-{number}" for number in range(1, len(ids) + 1)]
    about: dict[str, Any] = {"ids": ids, "name": where, "damage": Damage(count, tuple(first))}
    return TextSet(texts, **_told(task, values, ids, names, where), **about)


def _told(
    task: Task | None, values: list[Any], ids: list[str], names: tuple[str, ...] | None, where: str
) -> dict[str, Any]:
    """What a set holds beside its texts: answers, labels, or neither."""
    if task == "chat":
        return {"answers": values}
    if task == "ask":
        return {"classes": UNTOLD}
    labels, classes = check_labels(_array(values), ids, names, where)
    return {"labels": labels, "classes": classes}


def _array(labels: list[Any]) -> np.ndarray:
    """Integers where all labels are whole numbers, or read as such; else names."""
    try:
        return np.array([int(one) for one in labels], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([str(one) for one in labels], dtype=np.str_)


def row_reader(row: Columns, task: Task | None) -> tuple[Task, Callable[[Columns], tuple[str, Any]]]:
    """How to read all rows, by the columns of the first; raises BadRow where it has none that are known."""
    text = next((name for name in TEXT if name in row), None)
    label = next((name for name in LABEL if name in row), None)
    answer = next((name for name in ANSWER if name in row), None)
    turns = next((name for name in TURNS if name in row), None)
    if turns is not None and task != "classify":
        return "chat", lambda one: _talk(one, turns)
    if text is None:
        raise BadRow(f"no text among its columns {', '.join(map(repr, list(row)[:8]))}")
    if label is not None and task != "chat":
        return "classify", lambda one: (joined(one, text), _labelled(one, label))
    if answer is not None and task != "classify":
        return "chat", lambda one: (joined(one, text), _text(one, answer))
    if task == "ask":
        return "ask", lambda one: (joined(one, text), 0)
    raise BadRow("it has neither a label nor an answer" if task is None else f"it has nothing to {task} by")


def _text(row: Columns, name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"its '{name}' is no text")
    return _sound(str(value))


def _sound(text: str) -> str:
    if not _is_whole(text):
        raise BadRow("it holds half a character")
    return text


def joined(row: Columns, name: str) -> str:
    """The text of a row in the column `name`, with what goes on with it. Raises BadRow."""
    more = next((row[one] for one in INPUT if one != name and isinstance(row.get(one), str) and row[one]), "")
    return _sound(_text(row, name) + (f"\n{more}" if more else ""))


def _labelled(row: Columns, name: str) -> str | int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow(f"its '{name}' is no label")
    return value


def _talk(row: Columns, name: str) -> tuple[str, str]:
    turns = row.get(name)
    said = [_turn(one) for one in turns] if isinstance(turns, list) else []
    if len(said) < 2:
        raise BadRow(f"its '{name}' hold no talk of two turns")
    return "\n".join(said[:-1]), said[-1]


def _turn(turn: Any) -> str:
    value = next((turn[one] for one in ("content", "value") if one in turn), None) if isinstance(turn, dict) else None
    if not isinstance(value, str):
        raise BadRow("a turn of it is no text")
    return _sound(value)


def row_id(row: Columns | str) -> str | None:
    """The id that a row states itself; None where it has none."""
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value) if str(value).isprintable() and value != "" else None


def write_texts(path: Path, data: TextSet) -> None:
    """Write a set of texts as JSON lines that `open_texts` reads back; all rows have the same columns.

    The label is the name of the class, or its number where the classes are only numbered.
    """
    numbered = data.classes == tuple(map(str, range(len(data.classes))))
    with path.open("x", encoding="utf-8") as stream:
        for row, label in enumerate(data.labels.tolist()):
            columns: Columns = {"id": data.ids[row]}
            if data.answers is None:
                columns |= {"text": data.texts[row], "label": label if numbered else data.classes[label]}
            else:
                columns |= {"prompt": data.texts[row], "response": data.answers[row]}
            stream.write(json.dumps(columns, ensure_ascii=False) + "\n")
