"""Sets of encoded images: class folders and Parquet, and how open_data chooses among sources."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ostiary.core.errors import DataError, FormatError
from ostiary.data import ArraySet, ImageSet, Span, open_data, parquet, write_parquet
from ostiary.data.write import encode_png


def picture(level: int, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> Image.Image:
    array = np.random.default_rng(level).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(array).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def tree(root: Path, mode: str = "RGB") -> Path:
    for number, name in enumerate(["b/deep/2.png", "b/1.png", "a/0.png"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, mode).save(path)
    return root


def table(path: Path, images: list[bytes | None], labels: object, names: object = None, rows: int = 4) -> Path:
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.array(labels).type)]
    )
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    columns = {"image": [{"bytes": data, "path": None} for data in images], "label": labels}
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=rows)
    return path


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def test_a_tree_gives_sorted_classes_and_relative_ids(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    (root / "notes.txt").write_text("ignored")
    (root / "a" / "Thumbs.db").write_text("ignored")
    (root / ".hidden").mkdir()
    data = open_data(root)
    assert (data.name, data.classes, data.shape) == ("pets", ("a", "b"), (3, 5, 6))
    assert data.ids == ("a/0.png", "b/1.png", "b/deep/2.png")
    assert data.labels.tolist() == [0, 1, 1]
    assert torch.equal(data.pixels([2])[0], pixels_of(picture(0)))
    before = data.digest
    picture(9).save(root / "a" / "0.png")
    assert open_data(root).digest != before == data.digest


def test_a_tree_is_grey_only_if_every_image_is(tmp_path: Path) -> None:
    root = tree(tmp_path, "L")
    assert open_data(root).shape == (1, 5, 6)
    picture(5, "RGBA").save(root / "b" / "5.png")
    data = open_data(root)
    assert data.shape == (3, 5, 6)
    assert torch.equal(data.pixels([list(data.ids).index("b/5.png")])[0], pixels_of(picture(5, "RGBA")))


def test_trees_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in class folders"):
        open_data(tmp_path / "empty")
    root = tree(tmp_path / "pets")
    with pytest.raises(DataError, match="has no test part"):
        open_data(root, "test")
    picture(7, size=(9, 9)).save(root / "b" / "7.png")
    with pytest.raises(DataError, match=r"b/7.png: the image is 9x9, those before it are 6x5") as caught:
        open_data(root)
    assert caught.value.hint is not None and "resize" in caught.value.hint
    (root / "b" / "7.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"b/7.png: not a readable image"):
        open_data(root)
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(root / "b" / "7.png")
    with pytest.raises(DataError, match=r"b/7.png: the image has more than 8 bits"):
        open_data(root)
    Image.new("1", (5000, 4000)).save(root / "b" / "7.png")
    with pytest.raises(FormatError, match="5000x4000 pixels"):
        open_data(root)


def test_an_image_that_breaks_off_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = tree(tmp_path)
    path = root / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FormatError, match=r"a/0.png: the image is damaged"):
        open_data(root).take([0])


def test_links_may_not_leave_the_tree(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets")
    outside = tmp_path / "outside.png"
    picture(1).save(outside)
    link = root / "a" / "link.png"
    link.symlink_to(root / "a" / "0.png")
    assert "a/link.png" in open_data(root).ids
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(DataError, match=r"'a/link.png' is a link that leads outside"):
        open_data(root)
    link.unlink()
    (root / "a" / "loop").symlink_to(root)
    with pytest.raises(DataError, match=r"'a/loop' is a link to a folder"):
        open_data(root)


def test_parts_are_chosen_among_subfolders_but_a_class_may_be_called_train(tmp_path: Path) -> None:
    tree(tmp_path / "set" / "train")
    tree(tmp_path / "set" / "val")
    (tmp_path / "set" / "val" / "a" / "0.png").unlink()
    assert (len(open_data(tmp_path / "set")), len(open_data(tmp_path / "set", "test"))) == (3, 2)
    for name in ("car", "train"):
        tree(tmp_path / "vehicles" / name)
    assert open_data(tmp_path / "vehicles").classes == ("car", "train")


def test_parquet_gives_pixels_by_row_and_in_batches(tmp_path: Path) -> None:
    images = [picture(number) for number in range(11)]
    labels = [number % 3 for number in range(11)]
    path = table(tmp_path / "a.parquet", [encoded(image) for image in images], labels, ["x", "y", "z"])
    data = open_data(path)
    assert (data.classes, data.shape, data.ids[10]) == (("x", "y", "z"), (3, 5, 6), "a:10")
    whole = torch.stack([pixels_of(image) for image in images])
    assert torch.equal(torch.cat(list(data.pixel_batches(3))), whole)
    assert [len(block) for block in data.pixel_batches(3)] == [3, 3, 3, 2]
    rows = [10, 0, 4, 4, 7]
    assert torch.equal(data.pixels(rows), whole[rows])
    assert torch.equal(data.pixels(rows), whole[rows])
    view = data.subset([9, 1])
    assert view.digest == open_data(path).subset([9, 1]).digest


def test_access_by_row_stays_right_when_the_cache_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [encoded(picture(number)) for number in range(12)]
    data = open_data(table(tmp_path / "a.parquet", images, [0, 1] * 6))
    expected = data.pixels(range(12))
    for limit in (10, 5 * len(images[0])):
        monkeypatch.setattr(parquet, "CACHE_BYTES", limit)
        small = open_data(tmp_path / "a.parquet")
        rows = [11, 0, 5, 6, 1]
        assert torch.equal(small.pixels(rows), expected[rows])
        assert sum(size for _, size in small._cache.values()) <= limit


def test_parquet_accepts_plain_bytes_and_names_as_labels(tmp_path: Path) -> None:
    columns = {"image": [encoded(picture(1)), encoded(picture(2))], "label": ["dog", "cat"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    data = open_data(tmp_path / "a.parquet")
    assert data.classes == ("cat", "dog") and data.labels.tolist() == [1, 0]


def test_shards_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    images = [encoded(picture(number)) for number in range(4)]
    for number, name in enumerate(["train-00001", "train-00000", "test-00000"]):
        table(tmp_path / f"{name}.parquet", images[number : number + 1] * 2, [0, 1], ["x", "y"])
    train, test = open_data(tmp_path), open_data(tmp_path, "test")
    assert train.ids == ("train-00000:0", "train-00000:1", "train-00001:0", "train-00001:1")
    assert torch.equal(train.pixels([3, 0]), torch.stack([pixels_of(picture(0)), pixels_of(picture(1))]))
    assert test.ids == ("test-00000:0", "test-00000:1")
    table(tmp_path / "train-00002.parquet", images[:1], [0], ["x", "other"])
    with pytest.raises(DataError, match="name different classes"):
        open_data(tmp_path)
    assert open_data(tmp_path / "test-00000.parquet", "train").ids == test.ids


def test_parquet_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    good, path = encoded(picture(1)), tmp_path / "a.parquet"
    with pytest.raises(DataError, match=r"label 3 of sample 'a:1' is outside 0\.\.1"):
        open_data(table(path, [good, good], [0, 3], ["x", "y"]))
    with pytest.raises(DataError, match=r"label -1 of sample 'a:0'"):
        open_data(table(path, [good, good], [-1, 0], ["x", "y"]))
    with pytest.raises(DataError, match=r"label 0\.5 of sample 'a:1' is not an integer"):
        open_data(table(path, [good, good], [0.0, 0.5]))
    with pytest.raises(DataError, match="row 1 has no label"):
        open_data(table(path, [good, good], [0, None]))
    with pytest.raises(DataError, match="row 0 has no image bytes"):
        open_data(table(path, [None, good], [0, 1]))
    with pytest.raises(FormatError, match="a:1: not a readable image"):
        open_data(table(path, [good, b"no image"], [0, 1])).take([1])
    with pytest.raises(DataError, match="a:1: the image is 9x9"):
        list(open_data(table(path, [good, encoded(picture(1, size=(9, 9)))], [0, 1])).batches(2))
    with pytest.raises(DataError, match="a:1: the image has colour"):
        open_data(table(path, [encoded(picture(1, "L")), good], [0, 1])).take([0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="not a readable Parquet file"):
        open_data(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [0]}, "a set of images is needed, this is text"),
        ({"picture": [b"a"], "label": [0]}, "no column 'image' among 'picture', 'label'"),
        ({"image": [b"a"], "target": [0]}, "no column 'label'"),
        ({"image": ["a.png"], "label": [0]}, "column 'image' holds string, not encoded images"),
        ({"image": [b"a"], "label": [[0]]}, "column 'label' holds list"),
        ({"image": [b"a", b"b"], "label": [0, 1], "id": ["s", "s"]}, "the id 's' names two samples"),
    ],
)
def test_parquet_with_other_columns_is_refused(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "a.parquet")


def test_reading_a_parquet_file_never_holds_it_whole(tmp_path: Path) -> None:
    """3000 images of 128x128, in one row group, are 140 MiB of pixels and 560 MiB as floats; a pass must hold less."""
    image = encoded(picture(3, size=(128, 128)), "BMP")
    path = tmp_path / "a.parquet"
    data = pa.table({"image": pa.array([image] * 3000, pa.large_binary()), "label": [0, 1] * 1500})
    pq.write_table(data, path, row_group_size=3000, compression="zstd", use_dictionary=False)
    del data
    stream = open_data(path).batches(50)
    count = sum(len(next(stream)[0]) for _ in range(4))  # the first batches fill the allocators' pools
    before = peak = resident()
    for x, _ in stream:
        count += len(x)
        peak = max(peak, resident())
    assert count == 3000
    assert peak - before < 100 * 2**20


def resident() -> int:
    """Resident bytes of this process."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except FileNotFoundError:
        pytest.skip("needs /proc to read the resident memory")
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", FormatError, "no such file or folder: '"),
        ("hub:cifar10", FormatError, "no sets from the hub"),
        ("a.jsonl", DataError, "a set of images is needed, this is text"),
        ("a.csv.gz", DataError, "a set of images is needed, this is text"),
        ("a.bin", FormatError, "not a kind of data set that is known"),
    ],
)
def test_what_is_no_image_set_is_refused_with_a_hint(
    tmp_path: Path, name: str, error: type[FormatError], message: str
) -> None:
    if name.startswith("a."):
        (tmp_path / name).write_text("x")
    with pytest.raises(error, match=message) as caught:
        open_data(name if name.startswith("hub:") else tmp_path / name)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["parquet", "folder", "array"])
def test_a_span_is_digested_as_the_whole_set_digests_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ArraySet(np.random.default_rng(0).integers(0, 256, (11, 3, 4, 5), np.uint8), np.arange(11) % 3)
    whole: ImageSet = plain
    if kind == "parquet":
        monkeypatch.setattr("ostiary.data.write.GROUP_ROWS", 3)
        for number, rows in enumerate((range(7), range(7, 11))):
            write_parquet(tmp_path / f"{number}.parquet", plain.subset(rows))
        whole = open_data(tmp_path)
    elif kind == "folder":
        for row, label in enumerate(plain.labels.tolist()):
            (tmp_path / f"{label}").mkdir(exist_ok=True)
            (tmp_path / f"{label}" / f"{row}.png").write_bytes(encode_png(plain.pixels([row])[0]))
        whole = open_data(tmp_path)
    for start, stop in ((0, 11), (2, 5), (5, 10), (6, 8), (10, 11)):
        part = Span(whole, start, stop)
        assert np.array_equal(part.sample_digests, whole.sample_digests[start:stop])
        assert torch.equal(torch.cat(list(part.pixel_batches(2))), whole.pixels(range(start, stop)))
        assert list(part.ids) == list(whole.ids[start:stop]) and torch.equal(part.labels, whole.labels[start:stop])


def test_a_span_of_parquet_reads_its_own_row_groups_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [encoded(picture(number)) for number in range(12)]
    whole = open_data(table(tmp_path / "set.parquet", images, list(range(12)), rows=4))
    read: list[int | None] = []
    honest = parquet._Shard.stream
    monkeypatch.setattr(
        parquet._Shard, "stream", lambda shard, group=None: (read.append(group), honest(shard, group))[1]
    )
    assert list(whole.stored_span(5, 8)) == images[5:8]
    assert torch.equal(Span(whole, 5, 8).pixels([0, 2]), open_data(tmp_path / "set.parquet").pixels([5, 7]))
    assert set(read[:2]) == {1}
