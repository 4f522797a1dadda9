"""Writing of image sets as Parquet."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from ostiary.core.errors import OutputError
from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images
from ostiary.data.base import ImageSet, as_image_set

GROUP_ROWS = 1000
"""Most rows per row group; fewer where the images are large."""

_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("id", pa.string()),
    ]
)


def write_parquet(path: Path, data: LabelledSet[Images]) -> None:
    """Writes images, labels, ids and class names as Hugging Face `datasets` does; `open_data` reads it back exactly.

    Every image becomes an uncompressed PNG and no page is compressed, so that images of one set have
    one encoded size and nothing about their content can be told from it. OutputError if `path`
    exists or cannot be written.
    """
    if path.exists():
        raise OutputError(f"'{path}' exists already", hint="name another file, or move it away")
    schema = _SCHEMA.with_metadata({"huggingface": json.dumps(_features(data.classes))})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with pq.ParquetWriter(
            temporary, schema, compression="NONE", use_dictionary=False, write_statistics=False
        ) as writer:
            for table in _tables(as_image_set(data), schema):
                writer.write_table(table)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _features(classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "info": {
            "features": {
                "image": {"_type": "Image"},
                "label": {"names": list(classes), "_type": "ClassLabel"},
                "id": {"dtype": "string", "_type": "Value"},
            }
        }
    }


def _tables(data: ImageSet, schema: pa.Schema) -> Iterator[pa.Table]:
    start = 0
    for pixels in data.pixel_batches(min(GROUP_ROWS, data.chunk_rows)):
        stop = start + len(pixels)
        images = [{"bytes": encode_png(image), "path": None} for image in pixels]
        columns = [images, data.labels[start:stop].tolist(), list(data.ids[start:stop])]
        yield pa.table([pa.array(one, kind) for one, kind in zip(columns, schema.types, strict=True)], schema=schema)
        start = stop


def encode_png(image: Tensor) -> bytes:
    """A uint8 image [c, h, w] as an uncompressed PNG; its size depends on its shape alone."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
