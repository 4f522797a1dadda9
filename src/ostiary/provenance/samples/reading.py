"""The samples of a data set that the user names: every kind that Ostiary reads, without torch but for `digits`."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostiary.core.columns import IMAGE_SUFFIXES, MAX_ENCODED, Part, choose_shards, part_folder
from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.core.idx_files import idx_of, is_idx
from ostiary.provenance.samples.leaf import Kind, Sample, content_of_array, content_of_bytes
from ostiary.provenance.samples.pictures import check_picture

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")
CROISSANT_SUFFIXES = (".json", ".jsonld")
KINDS = "class folders of images, .npz, .parquet, MNIST IDX, .jsonl, .csv, .tsv, Croissant .json, or the name digits"


@dataclass(frozen=True, slots=True)
class Reading:
    """A set that was opened: its name, what its contents are, and its samples, which are read once, as a stream.

    `files` are the files it is read from, none for a folder of images and what is built in.
    """

    name: str
    kind: Kind
    samples: Iterator[Sample]
    files: tuple[Path, ...] = ()


def read_samples(
    spec: Path | str, part: Part = "train", *, source: str | None = None, source_field: str | None = None
) -> Reading:
    """The samples of a set: `digits`, a file or a folder; `part` as in `open_data`.

    Every sample has the `source`, or what stands in the column `source_field`, which tables alone have. Ids and labels
    are those that `ostiary screen` says. Raises FormatError, DataError or Refused (OS754), for some damage only while
    samples are taken; ConfigError for a column where there are none.
    """
    path = Path(spec)
    try:
        reading = _open(spec, path, part, source, source_field)
    except OSError as error:
        raise FormatError(f"'{spec}' cannot be read ({error.strerror or error})") from error
    return reading


def _open(spec: Path | str, path: Path, part: Part, source: str | None, field: str | None) -> Reading:
    if path.is_dir():
        return _folder(path, part, path.name or path.resolve().name, source, field)
    if path.is_file():
        return _file(path, part, source, field)
    if str(spec) == "digits":
        _no_columns(spec, field)
        return Reading("digits" if part == "train" else f"digits:{part}", "array", _digits(part, source))
    name = str(spec)
    if "#" in name and Path(name.rpartition("#")[0]).is_file():
        from ostiary.provenance.samples.croissant import read_croissant

        file, _, record_set = name.rpartition("#")
        return read_croissant(Path(file), record_set, source=source, source_field=field)
    raise FormatError(f"no such file or folder: '{spec}'", hint=f"a data set is {KINDS}")


def _file(path: Path, part: Part, source: str | None, field: str | None) -> Reading:
    from ostiary.provenance.samples import arrays

    suffix = [one for one in path.suffixes if one != ".gz"][-1:]
    if path.suffix == ".parquet" or (suffix and suffix[0] in TEXT_SUFFIXES):
        return tables([path], path.name, source, field, single=True)
    if path.suffix in CROISSANT_SUFFIXES:
        from ostiary.provenance.samples.croissant import read_croissant

        return read_croissant(path, None, source=source, source_field=field)
    if path.suffix != ".npz" and not is_idx(path):
        raise FormatError(f"{path.name}: not a kind of data set that is known", hint=f"a data set is {KINDS}")
    _no_columns(path, field)
    if path.suffix == ".npz":
        name = path.name if part == "train" else f"{path.name}:{part}"
        return Reading(name, "array", arrays.npz_samples(path, part, source), (path,))
    return Reading(path.name, "array", arrays.idx_samples(path, source), (path,))


def tables(
    paths: Sequence[Path], name: str, source: str | None, field: str | None, *, single: bool, like: object = None
) -> Reading:
    """The samples of one table, or of several with the same columns, one after the other.

    In a `single` file of texts, rows without an id are called `row-<number>`, else `<file stem>:<row>`. `like` are the
    `Columns` that a description of the set names. Raises as `image_samples` and `text_samples`.
    """
    from dataclasses import replace

    from ostiary.provenance.samples.tables import Columns, has_images, image_samples, kind_of_texts, text_samples

    columns = like if isinstance(like, Columns) else Columns()
    columns = columns if field is None else replace(columns, source=field)
    first, files = paths[0], tuple(paths)
    if first.suffix == ".parquet" and (has_images(first) or (like is not None and _binary(first, columns.content))):
        rows = (image_samples(path, columns, source) for path in paths)
        return Reading(name, "file", itertools.chain.from_iterable(rows), files)
    rows = (text_samples(path, columns, source, None if single else path.stem) for path in paths)
    return Reading(name, kind_of_texts(first, columns), itertools.chain.from_iterable(rows), files)


def _binary(path: Path, column: str | None) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    if column is None or column not in schema.names:
        return False
    kind = schema.field(column).type
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _folder(root: Path, part: Part | None, name: str, source: str | None, field: str | None) -> Reading:
    """`part` is None where the folder itself is the part chosen."""
    from ostiary.provenance.samples.arrays import idx_samples

    if (root / "train.jsonl").is_file():  # as `poison` and --export-kept write it
        return tables([root / "train.jsonl"], name, source, field, single=True)
    for place in (root, root / "data"):
        if files := sorted(place.glob("*.parquet"), key=lambda one: one.name):
            chosen, title = choose_shards(files, part, name)
            return tables(chosen, title, source, field, single=False)
    _no_columns(root, field)
    if (images := idx_of(root, part)) is not None:
        return Reading(name, "array", idx_samples(images, source), (images,))
    inside = [one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith(".")]
    if part is not None and (folder := part_folder(inside, part, name)) is not None:
        _check_link(root, folder)
        return _folder(root / folder, None, f"{name}:{part}", source, field)
    return Reading(name, "file", _pictures(root, name, source))


def _pictures(root: Path, name: str, source: str | None) -> Iterator[Sample]:
    """The images in class folders; ids are the paths under `root`, labels the names of the folders."""
    found = False
    for label in _names(root):
        _check_link(root, label)
        if not (root / label).is_dir():
            continue
        pending = [label]
        while pending:
            folder = pending.pop()
            for entry in _names(root / folder):
                full = f"{folder}/{entry}"
                path = root / full
                _check_link(root, full)
                if path.is_dir():
                    pending.append(full)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    found = True
                    yield Sample(full, content_of_bytes(check_picture(_bytes(path, full), full)), label, source)
    if not found:
        raise DataError(
            f"'{name}' has no images in class folders",
            hint="lay it out as one folder of images per class, or name a .npz or .parquet file",
        )


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _check_link(root: Path, name: str) -> None:
    """Refuses links that leave the tree, and links to folders, which may run in a circle."""
    path = root / name
    if path.is_symlink():
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError(f"'{name}' is a link that leads outside the folder", hint="replace links by the files")
        if path.is_dir():
            raise DataError(f"'{name}' is a link to a folder", hint="replace links by the files")


def _bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_ENCODED + 1)
    except OSError as error:
        raise FormatError(f"{name}: cannot be read ({error.strerror})") from error


def _digits(part: Part, source: str | None) -> Iterator[Sample]:
    from ostiary.data.digits import digits

    data = digits(part)
    names = [data.classes[label] for label in data.labels.tolist()]
    for identity, label, image in zip(data.ids, names, data.stored(), strict=True):
        yield Sample(identity, content_of_array("|u1", data.shape, image), label, source)


def _no_columns(spec: Path | str, field: str | None) -> None:
    if field is not None:
        raise ConfigError(f"'{spec}' has no columns, so no sources in '{field}'", hint="use --source")
