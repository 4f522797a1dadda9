"""Parquet files of images and labels, as Hugging Face `datasets` writes them, read as a stream."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from ostiary.core.columns import MAX_ENCODED, class_names, image_column, listed
from ostiary.core.errors import DataError, FormatError
from ostiary.data.base import ImageSet, as_rows, check_ids, check_labels
from ostiary.data.images import decode, open_image, shape_of

CACHE_BYTES = 256 * 2**20
"""Encoded bytes of row groups kept for access by row; a larger row group is streamed each time."""

READ_ROWS = 64
"""Encoded images read from a file at a time."""

UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError)


class ParquetSet(ImageSet):
    """Images in one or more Parquet files: column `image` (encoded bytes) and column `label`.

    Class names come from the `huggingface` schema metadata, else from string labels (sorted), else
    they are "0".."max". Ids come from a string column `id` where there is one, else they are
    "<file stem>:<row>". Only labels and ids are held in memory. FormatError for a damaged file,
    DataError for columns, labels or images that cannot be used.
    """

    def __init__(self, paths: Sequence[Path], name: str | None = None) -> None:
        self._where = name or paths[0].name
        self._shards = [_Shard(path) for path in paths]
        named = {shard.classes for shard in self._shards}
        if len(named) > 1:
            raise DataError(f"{self._where}: its files name different classes")
        ids = check_ids([identity for shard in self._shards for identity in shard.ids], self._where)
        values = np.concatenate([shard.labels for shard in self._shards])
        labels, classes = check_labels(values, ids, named.pop(), self._where)
        # One entry per row group over all files: (shard, group), and where its rows start.
        self._groups = [(shard, group) for shard in self._shards for group in range(shard.file.num_row_groups)]
        sizes = [shard.file.metadata.row_group(group).num_rows for shard, group in self._groups]
        self._starts = np.cumsum([0, *sizes])
        self._cache: OrderedDict[int, tuple[list[bytes], int]] = OrderedDict()
        first = next(shard.stream() for shard in self._shards if len(shard.ids))
        with open_image(next(first), ids[0]) as image:
            shape = shape_of(image)
        super().__init__(name=self._where, classes=classes, labels=labels, ids=ids, shape=shape)

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows`, decoded, as uint8 [n, c, h, w]; each row group is read at most once."""
        chosen = as_rows(rows, len(self)).numpy()
        encoded: list[bytes] = [b""] * len(chosen)
        groups = np.searchsorted(self._starts, chosen, side="right") - 1
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            local = chosen[places] - self._starts[group]
            for place, data in zip(places.tolist(), self._pick(group, local.tolist()), strict=True):
                encoded[place] = data
        return decode(encoded, [self.ids[row] for row in chosen.tolist()], self.shape)

    def pixel_batches(self, size: int, /) -> Iterator[Tensor]:
        """All samples in order as uint8 [<= size, c, h, w], decoded from one pass over the files."""
        stream, start = self.stored(), 0
        while encoded := list(islice(stream, size)):
            yield decode(encoded, self.ids[start : start + len(encoded)], self.shape)
            start += len(encoded)

    def stored(self) -> Iterator[bytes]:
        """The encoded bytes of every image, in order."""
        for shard in self._shards:
            if shard.ids:
                yield from shard.stream()

    def stored_span(self, start: int, stop: int, /) -> Iterator[bytes]:
        """The encoded bytes of the images `start` to `stop`, in order; row groups outside are not read."""
        for (shard, group), begin, end in zip(self._groups, self._starts, self._starts[1:], strict=False):
            if begin < stop and end > start:
                yield from islice(shard.stream(group), max(start - begin, 0), min(stop, end) - begin)

    def _pick(self, group: int, local: list[int]) -> list[bytes]:
        """The encoded images at `local` rows of a row group, through a cache bounded by CACHE_BYTES."""
        if group in self._cache:
            self._cache.move_to_end(group)
            images, _ = self._cache[group]
            return [images[row] for row in local]
        shard, number = self._groups[group]
        wanted, picked = set(local), dict[int, bytes]()
        whole: list[bytes] = []
        size = 0
        for row, data in enumerate(shard.stream(number)):
            if row in wanted:
                picked[row] = data
            size += len(data)
            if size <= CACHE_BYTES:
                whole.append(data)
            else:
                whole.clear()
        if size <= CACHE_BYTES:
            self._keep(group, whole, size)
        return [picked[row] for row in local]

    def _keep(self, group: int, images: list[bytes], size: int) -> None:
        self._cache[group] = images, size
        held = sum(one for _, one in self._cache.values())
        while held > CACHE_BYTES:
            _, (_, gone) = self._cache.popitem(last=False)
            held -= gone


class _Shard:
    """One Parquet file: its labels and ids, and its images as a stream."""

    def __init__(self, path: Path) -> None:
        self.where = path.name
        try:
            # Buffered, so that a column chunk is read a page at a time and not as a whole.
            self.file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
            schema = self.file.schema_arrow
            self._column = image_column(schema, self.where)
            self.labels = self._read_labels(schema)
            self.ids = self._read_ids(schema, path.stem)
        except UNREADABLE as error:
            raise FormatError(f"{self.where}: not a readable Parquet file ({error})") from error
        self.classes = class_names(schema, self.where)

    def stream(self, group: int | None = None) -> Iterator[bytes]:
        """The encoded images of one row group, or of all, in order, a few at a time."""
        meta = self.file.metadata
        groups = list(range(meta.num_row_groups)) if group is None else [group]
        start = row = sum(meta.row_group(one).num_rows for one in range(groups[0]))
        stop = start + sum(meta.row_group(one).num_rows for one in groups)
        try:
            for batch in self.file.iter_batches(
                batch_size=READ_ROWS, row_groups=groups, columns=[self._column], use_threads=False
            ):
                for data in pa.Table.from_batches([batch]).flatten().column(0):
                    yield self._checked(data.as_py(), row)
                    row += 1
        except UNREADABLE as error:
            raise FormatError(f"{self.where}: damaged near row {row} ({error})") from error
        if row != stop:
            raise FormatError(f"{self.where}: holds {row - start} images where {stop - start} were announced")

    def _checked(self, data: bytes | None, row: int) -> bytes:
        if data is None:
            raise DataError(
                f"{self.where}: row {row} has no image bytes", hint="embed the images in the file, not their paths"
            )
        if len(data) > MAX_ENCODED:
            raise FormatError(f"{self.where}: the image of row {row} is larger than {MAX_ENCODED} bytes")
        return data

    def _read_labels(self, schema: pa.Schema) -> NDArray[np.generic]:
        if "label" not in schema.names:
            raise DataError(f"{self.where}: no column 'label' among {listed(schema)}", hint="rename the label column")
        column = self.file.read(columns=["label"]).column(0)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"{self.where}: row {row} has no label")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or _is_string(column.type)):
            raise DataError(f"{self.where}: column 'label' holds {column.type}, not integers or names")
        return np.array(column.to_pylist(), dtype=np.str_) if _is_string(column.type) else column.to_numpy()

    def _read_ids(self, schema: pa.Schema, stem: str) -> list[str]:
        if "id" in schema.names and _is_string(schema.field("id").type):
            column = self.file.read(columns=["id"]).column(0)
            if column.null_count == 0:
                return [str(identity) for identity in column.to_pylist()]
        return [f"{stem}:{row}" for row in range(self.file.metadata.num_rows)]


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
