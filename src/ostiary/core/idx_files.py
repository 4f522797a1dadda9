"""How MNIST's IDX files lie in a folder: `*-images-idx3-ubyte[.gz]` with the labels file beside it."""

import re
from pathlib import Path

from ostiary.core.columns import no_part
from ostiary.core.errors import DataError, FormatError

_IMAGES = re.compile(r"images([-.])idx3-ubyte(\.gz)?$")
_PARTS = {"train": ("train",), "test": ("t10k", "test")}


def is_idx(path: Path) -> bool:
    """Whether the file is named like an IDX images file."""
    return _IMAGES.search(path.name) is not None


def labels_beside(path: Path) -> tuple[Path, str]:
    """The labels file of an images file, and the name that both stand under. Raises FormatError where it is missing."""
    stem = _IMAGES.sub("", path.name)
    found = (path.with_name(f"{stem}labels{sep}idx1-ubyte{gz}") for sep in "-." for gz in ("", ".gz"))
    labels = next((one for one in found if one.is_file()), None)
    if labels is None:
        raise FormatError(
            f"{path.name}: no labels file beside it", hint=f"put {stem}labels-idx1-ubyte into the same folder"
        )
    return labels, stem.rstrip("-._") or path.name


def idx_of(root: Path, part: str | None) -> Path | None:
    """The images file of `part` in a folder, or the only one where `part` is None; None where there is no such file.

    Raises NoPart where the others are of another part, DataError where several pairs lie there.
    """
    files = sorted((one for one in root.iterdir() if is_idx(one)), key=lambda one: one.name)
    if not files:
        return None
    if part is not None:
        files = [one for one in files if any(word in one.name for word in _PARTS[part])]
        if not files:
            raise no_part(root.name, part)
    # A file and its compressed copy are one pair.
    if len({one.name.removesuffix(".gz") for one in files}) > 1:
        raise DataError(f"'{root.name}' holds several IDX pairs", hint=f"name one of them, such as {files[0].name}")
    return files[0]
