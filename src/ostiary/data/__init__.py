"""Data sets of images: reading, writing, splits and content digests."""

from ostiary.data.arrays import ArraySet
from ostiary.data.base import ImageSet, Span, Subset, batch_size, require_classes, to_uint8, to_unit
from ostiary.data.digits import digits
from ostiary.data.folder import FolderSet
from ostiary.data.load import load_uint8
from ostiary.data.parquet import ParquetSet
from ostiary.data.source import Data, open_any, open_data
from ostiary.data.split import per_class_counts, split, stratified_rows, trusted_subset
from ostiary.data.text_files import open_texts, write_texts
from ostiary.data.texts import TextSet
from ostiary.data.write import write_parquet

__all__ = [
    "ArraySet",
    "Data",
    "FolderSet",
    "ImageSet",
    "ParquetSet",
    "Span",
    "Subset",
    "TextSet",
    "batch_size",
    "digits",
    "load_uint8",
    "open_any",
    "open_data",
    "open_texts",
    "per_class_counts",
    "require_classes",
    "split",
    "stratified_rows",
    "to_uint8",
    "to_unit",
    "trusted_subset",
    "write_parquet",
    "write_texts",
]
