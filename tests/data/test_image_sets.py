"""Contract of image sets: access, views, digests, splits, loading, writing."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ostiary.core.errors import ConfigError, DataError, OutputError
from ostiary.core.protocols import LabelledSet
from ostiary.data import (
    ArraySet,
    ImageSet,
    load,
    load_uint8,
    open_data,
    per_class_counts,
    require_classes,
    split,
    trusted_subset,
    write_parquet,
)


def make(n: int = 40, c: int = 3, size: int = 8, classes: int = 4) -> ArraySet:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, c, size, size), np.uint8)
    return ArraySet(x, np.arange(n) % classes, [f"class {k}" for k in range(classes)], [f"s{i}" for i in range(n)])


def test_take_and_batches_agree_with_the_pixels() -> None:
    data = make()
    assert isinstance(data, LabelledSet)
    x = data.take([7, 3])
    assert x.dtype == torch.float32
    assert torch.equal(x, data.pixels(torch.tensor([7, 3])).float() / 255)
    blocks = list(data.batches(16))
    assert [len(y) for _, y in blocks] == [16, 16, 8]
    assert torch.equal(torch.cat([x for x, _ in blocks]), data.take(range(40)))
    assert torch.equal(torch.cat([y for _, y in blocks]), data.labels)


def test_a_view_keeps_ids_and_order_and_has_its_own_digest() -> None:
    data = make()
    view = data.subset([9, 2, 5]).subset([2, 0])
    assert view.ids == ("s5", "s9")
    assert torch.equal(view.labels, data.labels[[5, 9]])
    assert torch.equal(view.pixels([0, 1]), data.pixels([5, 9]))
    assert view.digest != data.digest
    assert view.digest == data.subset([5, 9]).digest != data.subset([9, 5]).digest
    assert len(data.subset([])) == 0


@pytest.mark.parametrize("rows", [[-1], [40]])
def test_rows_outside_the_set_are_refused(rows: list[int]) -> None:
    with pytest.raises(IndexError, match=r"0\.\.39"):
        make().take(rows)


def test_a_mask_is_not_taken_for_row_numbers() -> None:
    with pytest.raises(TypeError, match="bool"):
        make().take(torch.ones(40, dtype=torch.bool))


def test_the_digest_depends_on_every_part_of_the_content() -> None:
    def build(pixel: int = 0, label: int = 0, identity: str = "a", name: str = "no", shape: int = 2) -> str:
        x = np.zeros((2, 1, shape, 4 // shape), np.uint8)
        x[1, 0, 0, 0] = pixel
        return ArraySet(x, [label, 1], [name, "yes"], [identity, "b"]).digest

    variants = [build(), build(pixel=1), build(label=1), build(identity="c"), build(name="n"), build(shape=1)]
    assert len(set(variants)) == len(variants)
    assert build() == build()


def test_the_digest_of_a_known_set_is_stable() -> None:
    data = ArraySet(np.zeros((2, 1, 2, 2), np.uint8), [0, 1])
    assert data.digest == "5da3478aca6eb474ceded577c063f735f4f8494460f3971b6e121626f608cbba"


def test_a_split_is_disjoint_stratified_and_seeded() -> None:
    data = make(n=100)
    first, second = split(data, (60, 22), seed=3)
    assert not set(first.ids) & set(second.ids)
    assert per_class_counts(first) == (15, 15, 15, 15)
    assert sorted(per_class_counts(second)) == [5, 5, 6, 6]
    torch.manual_seed(99)
    assert split(data, (60, 22), seed=3)[1].ids == second.ids
    assert split(data, (60, 22), seed=4)[1].ids != second.ids
    assert [len(part) for part in split(data, (0.5, 0.25, 0.25), seed=0)] == [50, 25, 25]


def test_a_split_keeps_the_shares_of_unequal_classes() -> None:
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    data = ArraySet(np.zeros((100, 1, 2, 2), np.uint8), labels, ["a", "b", "unused", "c"][:3])
    assert per_class_counts(trusted_subset(data, 10, seed=0)) == (7, 2, 1)
    assert per_class_counts(trusted_subset(data, 100, seed=0)) == (70, 20, 10)


@pytest.mark.parametrize("sizes", [(), (0,), (1.5,), (3, 0.5), (-1,), (True,)])
def test_impossible_split_sizes_are_refused(sizes: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="split"):
        split(make(), sizes, seed=0)


def test_more_samples_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(DataError, match="41 samples asked for, the set has 40"):
        trusted_subset(make(), 41, seed=0)


def test_load_gives_all_pixels_in_order_in_memory_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = make().subset(torch.arange(39, -1, -1))
    inside, mapped = load_uint8(data), load_uint8(data, limit=100)
    assert torch.equal(inside, make().pixels(range(39, -1, -1)))
    assert torch.equal(inside, mapped)
    assert list(tmp_path.iterdir()) == []


def test_load_refuses_when_the_disk_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(OutputError, match="temporary space"):
        load_uint8(make(), limit=100)


class Foreign:
    """A labelled set that is no ImageSet."""

    def __init__(self, data: ImageSet) -> None:
        self.classes, self.ids, self.labels, self.digest = data.classes, data.ids, data.labels, data.digest
        self.take, self.batches, self.subset = data.take, data.batches, data.subset

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_as_parquet_reads_back_the_same(tmp_path: Path, channels: int) -> None:
    data = make(c=channels)
    write_parquet(tmp_path / "a.parquet", data)
    back = open_data(tmp_path / "a.parquet")
    assert (back.classes, back.ids, back.shape) == (data.classes, data.ids, data.shape)
    assert torch.equal(back.labels, data.labels)
    assert torch.equal(back.pixels(range(40)), data.pixels(range(40)))
    assert torch.equal(back.pixels([30, 2]), data.pixels([30, 2]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_foreign_set_is_loaded_and_written_exactly(tmp_path: Path) -> None:
    data = make()
    assert torch.equal(load_uint8(Foreign(data)), data.pixels(range(40)))
    write_parquet(tmp_path / "a.parquet", Foreign(data))
    assert torch.equal(load_uint8(open_data(tmp_path / "a.parquet")), data.pixels(range(40)))


def test_written_images_all_have_one_encoded_size_and_no_path(tmp_path: Path) -> None:
    x = make(n=6).pixels(range(6))
    x[0], x[1], x[2, :, :4] = 0, 255, 7
    write_parquet(tmp_path / "a.parquet", ArraySet(x, [0, 1, 2, 0, 1, 2]))
    images = pq.read_table(tmp_path / "a.parquet").column("image").to_pylist()
    assert len({len(image["bytes"]) for image in images}) == 1
    assert {image["path"] for image in images} == {None}
    meta = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
    assert meta.compression == "UNCOMPRESSED" and meta.statistics is None


def test_writing_never_overwrites_and_leaves_nothing_behind_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"kept")
    with pytest.raises(OutputError, match="exists already"):
        write_parquet(path, make())
    assert path.read_bytes() == b"kept"
    with pytest.raises(OutputError, match="cannot be written"):
        write_parquet(tmp_path / "missing" / "b.parquet", make())

    class Failing(ArraySet):
        def pixels(self, rows: object, /) -> torch.Tensor:
            raise DataError("no pixels")

    with pytest.raises(DataError, match="no pixels"):
        write_parquet(tmp_path / "c.parquet", Failing(np.zeros((2, 1, 2, 2), np.uint8), [0, 1]))
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_one_class_can_be_read_but_not_used_where_two_are_needed() -> None:
    data = ArraySet(np.zeros((2, 1, 2, 2), np.uint8), [1, 1], ["a", "b"])
    with pytest.raises(DataError, match="samples of 1 class, 2 are needed"):
        require_classes(data)
    require_classes(make(), 4)
