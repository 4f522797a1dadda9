"""Sets held as arrays: ArraySet's checks, .npz, IDX and digits."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ostiary.core.errors import DataError, FormatError
from ostiary.data import ArraySet, arrays, open_data, per_class_counts

ZEROS = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 5, 6), (1, 5, 6)), ((2, 5, 6, 3), (3, 5, 6)), ((2, 5, 6, 1), (1, 5, 6)), ((2, 3, 5, 6), (3, 5, 6))],
)
def test_layouts_become_channels_first(shape: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    data = ArraySet(x, [0, 1])
    assert data.shape == expected
    if len(shape) == 4 and shape[-1] in (1, 3):
        assert torch.equal(data.pixels([1])[0, :, 2, 4], torch.from_numpy(x[1, 2, 4]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels_that_are_whole_levels_are_kept_exactly(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    data = ArraySet(levels.astype(dtype) / dtype(255), [0])
    assert torch.equal(data.pixels([0]), torch.from_numpy(levels))


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.full((3, 4, 4), 1.5), [0, 1, 0], r"range from 1.5 to 1.5, not within 0\.\.1"),
        (np.full((3, 4, 4), -3), [0, 1, 0], r"range from -3 to -3, not within 0\.\.255"),
        (np.full((3, 4, 4), 0.3333), [0, 1, 0], "not multiples of 1/255"),
        (np.full((3, 4, 4), np.nan), [0, 1, 0], "pixel of sample '0' is NaN"),
        (np.zeros((3, 4, 4, 4), np.uint8), [0, 1, 0], "neither 1 nor 3 channels"),
        (np.zeros((3, 4), np.uint8), [0, 1, 0], r"images have shape \[3, 4\]"),
        (np.zeros((3, 0, 4), np.uint8), [0, 1, 0], "holds no pixel"),
        (np.zeros((3, 4, 4), np.complex64), [0, 1, 0], "pixels are complex64"),
        (ZEROS, [0, 1], r"labels have shape \[2\] for 3 samples"),
        (ZEROS, [0, -1, 0], r"label -1 of sample '1' is outside 0\.\.0"),
        (ZEROS, [0, 10**9, 0], r"label 1000000000 of sample '1' is outside 0\.\.99999"),
        (ZEROS, [0, 1.5, 0], "label 1.5 of sample '1' is not an integer"),
        (ZEROS, [0, np.nan, 0], "label nan of sample '1' is not an integer"),
        (ZEROS, [True, False, True], "labels are bool"),
        (ZEROS[:0], [], "the set is empty"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(x: np.ndarray, labels: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArraySet(x, labels)


def test_labels_must_have_a_class_and_ids_must_be_unique() -> None:
    with pytest.raises(DataError, match=r"label 12 of sample 'x' is outside 0\.\.9"):
        ArraySet(ZEROS, [0, 1, 12], [str(k) for k in range(10)], ["a", "b", "x"])
    with pytest.raises(DataError, match="the id 'a' names two samples"):
        ArraySet(ZEROS, [0, 1, 0], ids=["a", "b", "a"])
    with pytest.raises(DataError, match="2 ids for 3 images"):
        ArraySet(ZEROS, [0, 1, 0], ids=["a", "b"])
    with pytest.raises(DataError, match="label 'c' of sample '2' is not among the class names"):
        ArraySet(ZEROS, np.array(["a", "b", "c"]), ["a", "b"])
    with pytest.raises(DataError, match="names 0 classes"):
        ArraySet(ZEROS, [0, 1, 0], [])


def test_names_as_labels_are_numbered_in_sorted_order() -> None:
    data = ArraySet(ZEROS, np.array(["dog", "cat", "dog"]))
    assert data.classes == ("cat", "dog") and data.labels.tolist() == [1, 0, 1]


def test_npz_parts_class_names_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    extra = np.array(["ignored"])
    np.savez(path, x_train=ZEROS, y_train=[[0], [1], [1]], x_test=ZEROS[:2], y_test=[0, 2], extra=extra)
    train, test = open_data(path), open_data(str(path), "test")
    assert (len(train), len(test)) == (3, 2)
    assert train.classes == test.classes == ("0", "1", "2")
    assert train.ids[0] == "train:0" and test.ids[0] == "test:0"
    np.savez(path, x=ZEROS, y=np.array([0, 1, 1], np.uint8), class_names=np.array(["a", "b"]))
    assert open_data(path).classes == ("a", "b")
    with pytest.raises(DataError, match="has no test part") as caught:
        open_data(path, "test")
    assert caught.value.hint is not None and "test samples" in caught.value.hint


def test_npz_without_images_names_what_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=ZEROS)
    with pytest.raises(DataError, match="holds weights; x and y"):
        open_data(tmp_path / "a.npz")


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """An array file whose header may lie about the shape."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(buffer, {**header, "shape": array.shape if shape is None else shape})
    return buffer.getvalue() + array.tobytes()


def test_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    path, labels = tmp_path / "a.npz", npy(np.array([0, 1, 1]))
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(FormatError, match=r"not a readable \.npz file"):
        open_data(path)
    for shape in [(10**6, 10**6), (-3, -4, 4, 3), (3, 4, 4, 1)]:
        with pytest.raises(FormatError, match="do not match its shape"):
            open_data(zip_of(path, x=npy(ZEROS, shape), y=labels))
    with pytest.raises(FormatError, match="not a readable array"):
        open_data(zip_of(path, x=b"not an array", y=labels))
    np.savez(path, x=np.array([{}, [], ()], dtype=object), y=[0, 1, 1])
    with pytest.raises(FormatError, match="object values"):
        open_data(path)
    data = bytearray(zip_of(path, x=npy(ZEROS + 7), y=labels).read_bytes())
    data[60:70] = b"\xff" * 10
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"not a readable \.npz file"):
        open_data(path)


def test_an_npz_that_decodes_to_too_much_is_refused_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((100, 64, 64), np.uint8), y=np.zeros(100, np.uint8))
    monkeypatch.setattr(arrays, "MAX_DECODED", 2**16)
    with pytest.raises(FormatError, match="at most 65536 are allowed"):
        open_data(tmp_path / "a.npz")


def idx(path: Path, array: np.ndarray) -> Path:
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_idx_files_and_folders(tmp_path: Path) -> None:
    x = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    train = idx(tmp_path / "train-images-idx3-ubyte", x)
    idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 1, 2], np.uint8))
    assert torch.equal(open_data(train).pixels([2])[0, 0], torch.from_numpy(x[2]))
    with pytest.raises(DataError, match="has no test part"):
        open_data(tmp_path, "test")
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", x[:2])
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([2, 1], np.uint8))
    assert open_data(tmp_path).ids == ("train:0", "train:1", "train:2")
    assert open_data(tmp_path, "test").labels.tolist() == [2, 1]


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    path, x = tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8)
    idx(path, x)
    with pytest.raises(FormatError, match="no labels file beside it"):
        open_data(path)
    idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 1, 2], np.uint8))
    whole = path.read_bytes()
    for data, message in [
        (whole[:-1], "ends after 47 of 48 bytes"),
        (whole + b"\0", "more bytes than its header says"),
        (b"\0\0\x0d\3" + whole[4:], "not an IDX file"),
        (whole[:4] + b"\xff" * 12, "at most"),
    ]:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            open_data(path)


def test_digits_have_a_fixed_stratified_split() -> None:
    train, test = open_data("digits"), open_data("digits", "test")
    assert (len(train), len(test), train.shape) == (1347, 450, (3, 32, 32))
    assert not set(train.ids) & set(test.ids)
    assert max(per_class_counts(test)) - min(per_class_counts(test)) <= 3
    assert train.digest == "9e2a6b1d29ed133c89561bab35ad92211149ad5279ef5e62dc8eaabd8379311f"
