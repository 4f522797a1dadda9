"""Opens a data set by what the user names: a built-in name, a file or a folder."""

from pathlib import Path

from ostiary.core.columns import Part, choose_shards, part_folder
from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.core.idx_files import idx_of, is_idx
from ostiary.data.arrays import open_npz
from ostiary.data.base import ImageSet
from ostiary.data.digits import digits
from ostiary.data.folder import FolderSet, is_folder
from ostiary.data.idx import open_idx
from ostiary.data.parquet import ParquetSet
from ostiary.data.text_files import is_texts, open_texts
from ostiary.data.texts import Task, TextSet

Data = ImageSet | TextSet

_KINDS = "a class-per-folder image tree, .npz, .parquet, MNIST IDX, or the built-in name digits"


def open_data(spec: str | Path, part: Part = "train") -> ImageSet:
    """Opens the image set named by `spec`: `digits`, an .npz, Parquet or IDX file, or a folder.

    `part` chooses between the train and test parts of a source that has both: `digits` (1347 and
    450 samples), an .npz with `x_train` and `x_test`, a folder with `train/` and `test/` (or `val/`),
    `train-*.parquet` and `test-*.parquet`, or MNIST's pairs. A Parquet or IDX file is itself the part
    that the user named. FormatError for what is missing, unknown or damaged; DataError for a part
    that the source lacks and for data that cannot be used.
    """
    text = str(spec)
    if text == "digits":
        return digits(part)
    path = Path(spec)
    try:
        if path.is_dir():
            return _open_folder(path, part, path.name or str(path.resolve().name))
        if path.is_file():
            return _open_file(path, part)
    except OSError as error:
        raise FormatError(f"'{text}' cannot be read ({error})") from error
    if text.startswith("hub:"):
        raise FormatError(f"'{text}': this version reads no sets from the hub", hint="download it and name the file")
    raise FormatError(f"no such file or folder: '{text}'", hint=f"a data set is {_KINDS}")


def open_any(spec: str | Path, task: Task | None = None) -> Data:
    """A set of texts where `spec` names a file of them or a folder with train.jsonl, else what `open_data` opens.

    Raises ConfigError for a `task` where there are no texts, and as `open_texts` and `open_data`.
    """
    path = Path(spec)
    if (path / "train.jsonl").is_file():  # as `poison` and --export-kept write it
        path /= "train.jsonl"
    if path.is_file() and is_texts(path):
        return open_texts(path, task)
    if task is not None and (str(spec) == "digits" or path.exists()):
        raise ConfigError(
            f"'{spec}' is no file of texts, and one is needed here",
            hint="texts are in .jsonl, .csv, .tsv (also .gz) or .parquet; sets of images have no task",
        )
    return open_data(spec)


def _open_file(path: Path, part: Part) -> ImageSet:
    if path.suffix == ".npz":
        return open_npz(path, part)
    if path.suffix == ".parquet":
        return ParquetSet([path])
    if is_idx(path):
        return open_idx(path)
    if is_texts(path) or path.suffix in (".json", ".txt"):
        raise DataError(f"{path.name}: a set of images is needed, this is text", hint=f"a set of images is {_KINDS}")
    raise FormatError(f"{path.name}: not a kind of data set that is known", hint=f"a data set is {_KINDS}")


def _open_folder(root: Path, part: Part | None, name: str) -> ImageSet:
    """`part` is None where the folder itself is the part chosen."""
    for place in (root, root / "data"):
        files = sorted(place.glob("*.parquet"), key=lambda one: one.name)
        if files:
            return ParquetSet(*choose_shards(files, part, name))
    if (images := idx_of(root, part)) is not None:
        return open_idx(images)
    inside = [one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith(".")]
    if part is not None and (chosen := part_folder(inside, part, name)) is not None:
        is_folder(root / chosen, root)  # refuses a link
        return _open_folder(root / chosen, None, f"{name}:{part}")
    return FolderSet(root, name)
