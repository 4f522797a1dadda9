"""Names and ids come from untrusted files: what no record could hold is refused when the set is opened."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ostiary.core.errors import DataError, FormatError
from ostiary.data import ArraySet, open_data
from ostiary.models.checkpoint import read_state

X, Y = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "a\0b"])
def test_a_class_name_or_id_that_is_no_line_of_text_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="not a line of text"):
        ArraySet(X, Y, classes=("a", name))
    with pytest.raises(DataError, match="not a line of text"):
        ArraySet(X, Y, ids=("1", "2", "3", name))


def test_class_names_that_are_no_characters_are_refused(tmp_path: Path) -> None:
    names = np.array([0x7FFFFFFF, 65], np.uint32).view("<U1")
    np.savez(tmp_path / "x.npz", x=X, y=Y, classes=names)
    with pytest.raises(DataError, match="class name"):
        open_data(tmp_path / "x.npz")


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    for name in (b"a", b"b\xff"):
        folder = tmp_path / "set" / name.decode("utf-8", "surrogateescape")
        folder.mkdir(parents=True)
        Image.fromarray(X[0]).save(folder / "1.png")
    with pytest.raises(DataError, match="not a line of text"):
        open_data(tmp_path / "set")


def test_weights_without_values_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2, device="meta").state_dict(), tmp_path / "m.pt")
    with pytest.raises(FormatError, match="no values"):
        read_state(tmp_path / "m.pt")
