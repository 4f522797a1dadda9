"""A tree of image files with one folder per class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ostiary.core.columns import IMAGE_SUFFIXES, MAX_ENCODED, check_classes
from ostiary.core.errors import DataError, FormatError
from ostiary.data.base import ImageSet, as_rows, check_labels
from ostiary.data.images import decode, is_grey, odd_size, open_image


class FolderSet(ImageSet):
    """Images under `root`, one folder per class; classes are the sorted folder names, ids the relative paths.

    Files without an image suffix and hidden entries are ignored. Opening reads every file's header:
    all images must have one size. DataError for an empty tree, mixed sizes, a link that leads
    outside `root` or to a folder; FormatError for an unreadable image.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        where = name or root.name
        folders = [entry for entry in _entries(root) if is_folder(entry, root)]
        found = [(path, number) for number, folder in enumerate(folders) for path in _images(folder, root)]
        if not found:
            raise DataError(
                f"'{where}' has no images in class folders",
                hint="lay it out as one folder of images per class, or name a .npz or .parquet file",
            )
        self._root = root
        self._paths = [path for path, _ in found]
        ids = tuple(path.relative_to(root).as_posix() for path in self._paths)
        names = check_classes([folder.name for folder in folders], where)
        labels, classes = check_labels(np.array([number for _, number in found]), ids, names, where)
        super().__init__(name=where, classes=classes, labels=labels, ids=ids, shape=_common_shape(self._paths, ids))

    def pixels(self, rows: Sequence[int] | Tensor, /) -> Tensor:
        """The samples at `rows`, decoded, as uint8 [n, c, h, w]."""
        chosen = as_rows(rows, len(self)).tolist()
        return decode([_read(self._paths[row]) for row in chosen], [self.ids[row] for row in chosen], self.shape)

    def stored(self) -> Iterator[bytes]:
        """The bytes of every file, in order."""
        return self.stored_span(0, len(self))

    def stored_span(self, start: int, stop: int, /) -> Iterator[bytes]:
        """The bytes of the files `start` to `stop`, in order."""
        return (_read(path) for path in self._paths[start:stop])


def _entries(folder: Path) -> list[Path]:
    return sorted((one for one in folder.iterdir() if not one.name.startswith(".")), key=lambda one: one.name)


def is_folder(entry: Path, root: Path) -> bool:
    """Whether to descend; refuses links that leave the tree, and links to folders, which may run in a circle."""
    if entry.is_symlink():
        name = entry.relative_to(root).as_posix()
        if not entry.resolve().is_relative_to(root.resolve()):
            raise DataError(f"'{name}' is a link that leads outside the folder", hint="replace links by the files")
        if entry.is_dir():
            raise DataError(f"'{name}' is a link to a folder", hint="replace links by the files")
    return entry.is_dir()


def _images(folder: Path, root: Path) -> list[Path]:
    found, pending = [], [folder]
    while pending:
        for entry in _entries(pending.pop()):
            if is_folder(entry, root):
                pending.append(entry)
            elif entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                found.append(entry)
    return sorted(found)


def _common_shape(paths: Sequence[Path], ids: Sequence[str]) -> tuple[int, int, int]:
    """The one (c, h, w) of all images; 1 channel only if all are grey."""
    size, grey = None, True
    for path, name in zip(paths, ids, strict=True):
        try:
            with path.open("rb") as stream, open_image(stream, name) as image:
                size = size or (image.height, image.width)
                if (image.height, image.width) != size:
                    raise odd_size(name, image, (3, *size))
                grey = grey and is_grey(image)
        except OSError as error:
            raise FormatError(f"{name}: cannot be read ({error.strerror})") from error
    assert size is not None  # noqa: S101 - callers refuse an empty tree
    return (1 if grey else 3, *size)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_ENCODED + 1)
    except OSError as error:
        raise FormatError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_ENCODED:
        raise FormatError(f"{path.name}: larger than {MAX_ENCODED} bytes")
    return data
