"""Samples of every kind of set: ids and labels that other commands say, contents as stored, bad input by name."""

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ostiary.core.errors import ConfigError, DataError, FormatError, NoPart, OstiaryError
from ostiary.data import open_any, open_data, write_parquet
from ostiary.data.arrays import ArraySet
from ostiary.provenance.refusal import Refused
from ostiary.provenance.samples.compare import against_data
from ostiary.provenance.samples.croissant_write import described
from ostiary.provenance.samples.leaf import Sample, content_of_array, content_of_talk
from ostiary.provenance.samples.manifest import SampleManifest, Summary, about_set, write_manifest
from ostiary.provenance.samples.reading import read_samples

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)


def encoded(number: int, kind: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(PIXELS[number % 6]).save(stream, kind)
    return stream.getvalue()


def tree(root: Path, *, parts: bool = False) -> Path:
    for number, name in enumerate(["b/deep/2.png", "b/1.png", "a/0.jpg", "a/3.gif", "c/4.bmp", "c/5.webp"]):
        path = root / ("train" if parts else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG"}.get(path.suffix[1:], path.suffix[1:].upper())
        path.write_bytes(encoded(number, kind))
    (root / "readme.txt").write_text("no image")
    if parts:
        (root / "test" / "a").mkdir(parents=True)
        (root / "test" / "a" / "9.png").write_bytes(encoded(5))
    return root


def table(path: Path, **columns: Any) -> Path:
    rows = {"image": [{"bytes": encoded(n), "path": None} for n in range(4)], "label": [1, 0, 1, 1], **columns}
    pq.write_table(pa.table({name: value for name, value in rows.items() if value is not None}), path)
    return path


def rows(spec: Path | str, part: Any = "train", **how: Any) -> list[Sample]:
    return list(read_samples(spec, part, **how).samples)


def jsonl(path: Path, *found: Any) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in found)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def sets(root: Path) -> dict[str, tuple[Path | str, str]]:
    """One of every kind, with its part."""
    (root / "shards" / "data").mkdir(parents=True)
    for number in range(2):
        table(root / "shards" / "data" / f"train-{number}.parquet")
    np.savez(root / "plain.npz", x=PIXELS, y=np.array([0, 1, 2, 0, 1, 2]), classes=np.array(["x", "y", "z"]))
    np.savez(root / "parts.npz", x_train=PIXELS, y_train=np.arange(6) % 2, x_test=PIXELS[:2], y_test=np.arange(2))
    (root / "idx").mkdir()
    for name, count in (("train", 6), ("t10k", 3)):
        images = bytes((0, 0, 8, 3)) + struct.pack(">III", count, 5, 4) + PIXELS[:count, :, :, 0].tobytes()
        (root / "idx" / f"{name}-images-idx3-ubyte").write_bytes(images)
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", count) + bytes(range(count))
        (root / "idx" / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    write_parquet(root / "written.parquet", ArraySet(PIXELS, np.arange(6) % 3, ["p", "q", "r"]))
    jsonl(root / "own.jsonl", {"id": "one", "text": "a", "label": "x"}, {"id": 2, "text": "b", "label": "y"})
    (root / "set.csv").write_text("text,label\nhello,1\nwörld,0\n")
    jsonl(root / "talk.jsonl.gz", {"prompt": "p", "response": "r"}, {"prompt": "q", "response": "s"})
    return {
        "tree": (tree(root / "tree"), "train"),
        "tree with parts": (tree(root / "parts", parts=True), "test"),
        "shards": (root / "shards", "train"),
        "table": (table(root / "ids.parquet", id=["w", "x", "y", "z"], label=["k", "l", "k", "k"]), "train"),
        "written": (root / "written.parquet", "train"),
        "npz": (root / "plain.npz", "train"),
        "npz with parts": (root / "parts.npz", "test"),
        "idx": (root / "idx", "train"),
        "digits": ("digits", "test"),
        "jsonl": (root / "own.jsonl", "train"),
        "csv": (root / "set.csv", "train"),
        "talk": (root / "talk.jsonl.gz", "train"),
    }


def test_every_kind_has_the_ids_and_labels_that_other_commands_say(tmp_path: Path) -> None:
    for kind, (spec, part) in sets(tmp_path).items():
        found = rows(spec, part, source="s")
        data = open_data(spec, part) if part == "test" else open_any(spec)  # type: ignore[arg-type]
        wanted = [data.classes[label] for label in data.labels.tolist()] if kind != "talk" else [None] * len(data)
        assert dict(zip(data.ids, wanted, strict=True)) == {one.id: one.label for one in found}, kind
        assert {one.source for one in found} == {"s"}


def test_contents_are_of_the_bytes_as_stored(tmp_path: Path) -> None:
    made = sets(tmp_path)
    pictures = {one.id: one.content for one in rows(made["tree"][0])}
    assert pictures["b/1.png"] == hashlib.sha256((tmp_path / "tree" / "b" / "1.png").read_bytes()).digest()
    assert rows(made["table"][0])[2].content == hashlib.sha256(encoded(2)).digest()
    assert rows(made["npz"][0])[1].content == content_of_array("|u1", (5, 4, 3), PIXELS[1].tobytes())
    assert rows(made["csv"][0])[1].content == hashlib.sha256("wörld".encode()).digest()
    assert rows(made["talk"][0])[1].content == content_of_talk("q", "s")


def test_arrays_are_read_by_value_whatever_their_order(tmp_path: Path) -> None:
    y = np.arange(6)
    np.savez(tmp_path / "c.npz", x=PIXELS, y=y)
    np.savez_compressed(tmp_path / "f.npz", x=np.asfortranarray(PIXELS), y=y[:, None])
    np.savez(tmp_path / "bare.npz", x=PIXELS.astype(np.float32))
    assert rows(tmp_path / "c.npz") == rows(tmp_path / "f.npz")
    bare = rows(tmp_path / "bare.npz")
    assert {one.label for one in bare} == {None} and bare[0].content != rows(tmp_path / "c.npz")[0].content


def test_sources_of_a_column(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", origin=["a", "b", "a", "c"])
    assert [one.source for one in rows(path, source_field="origin")] == ["a", "b", "a", "c"]
    path = jsonl(tmp_path / "t.jsonl", {"text": "a", "label": 0, "from": "x"}, {"text": "b", "label": 1, "from": "y"})
    assert [one.source for one in rows(path, source_field="from")] == ["x", "y"]
    with pytest.raises(DataError, match="no column 'none'"):
        rows(table(tmp_path / "u.parquet"), source_field="none")
    with pytest.raises(DataError, match="no column 'none'"):
        rows(path, source_field="none")
    with pytest.raises(ConfigError, match="has no columns"):
        read_samples("digits", source_field="origin")


def test_sets_without_labels(tmp_path: Path) -> None:
    assert {one.label for one in rows(table(tmp_path / "t.parquet", label=None))} == {None}
    mixed = rows(table(tmp_path / "u.parquet", label=pa.array([1, None, 0, 1], pa.int64())))
    assert [one.label for one in mixed] == ["1", None, "0", "1"]
    assert [one.label for one in rows(jsonl(tmp_path / "t.jsonl", {"text": "a"}, {"text": "b"}))] == [None, None]


def write_raw(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(path: Path, **members: bytes) -> Path:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(array: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


BAD: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "nothing": (lambda root: root / "none", "no such file"),
    "empty folder": (lambda root: root, "no images in class folders"),
    "unknown": (lambda root: write_raw(root / "x.bin", b"x"), "not a kind of data set"),
    "empty image": (lambda root: write_raw(tree(root) / "a" / "7.png", b"").parents[1], "a/7.png: not a whole image"),
    "text as image": (
        lambda root: write_raw(tree(root) / "a" / "7.jpg", b"x").parents[1],
        "a/7.jpg: not a whole image",
    ),
    "broken off": (
        lambda root: write_raw(tree(root) / "a" / "7.png", encoded(0)[:90]).parents[1],
        "a/7.png: not a whole image",
    ),
    "broken jpeg": (
        lambda root: write_raw(tree(root) / "a" / "7.jpg", encoded(0, "JPEG")[:-200]).parents[1],
        "a/7.jpg: not a whole image",
    ),
    "broken in a table": (
        lambda root: table(root / "t.parquet", image=[encoded(0), encoded(1)[:50], encoded(2), encoded(3)]),
        "t.parquet: row 1: not a whole image",
    ),
    "no bytes": (
        lambda root: table(root / "t.parquet", image=pa.array([encoded(0), None, encoded(1), encoded(2)], pa.binary())),
        "row 1 has no image bytes",
    ),
    "no id": (
        lambda root: table(root / "t.parquet", id=["a", "b", None, "c"]),
        "t.parquet: row 2: its 'id' is no text",
    ),
    "odd label": (lambda root: table(root / "t.parquet", label=[0.5, 1, 0, 1]), "its label is float"),
    "parquet cut": (
        lambda root: write_raw(root / "u.parquet", table(root / "t.parquet").read_bytes()[:-30]),
        "not a readable Parquet file",
    ),
    "npz cut": (lambda root: write_raw(root / "x.npz", b"PK\x03\x04xxxx"), "not a readable .npz"),
    "npz lies": (lambda root: zipped(root / "x.npz", x=npy(PIXELS)[:-9], y=npy(np.arange(6))), "it ends after"),
    "npz long": (lambda root: zipped(root / "x.npz", x=npy(PIXELS) + b"0", y=npy(np.arange(6))), "more bytes than"),
    "npz labels": (lambda root: zipped(root / "x.npz", x=npy(PIXELS), y=npy(np.arange(5))), "labels have shape [5]"),
    "npz objects": (
        lambda root: zipped(root / "x.npz", x=npy(PIXELS), y=npy(np.array([None] * 6, object))),
        "which are not read",
    ),
    "npz outside": (
        lambda root: zipped(root / "x.npz", x=npy(PIXELS), y=npy(np.arange(6)), classes=npy(np.array(["a", "b"]))),
        "label 2 of sample 2 is outside 0..1",
    ),
    "npz huge": (
        lambda root: zipped(root / "x.npz", x=npy(PIXELS).replace(b"(6, 5, 4, 3)", b"(6,99999,99999)")),
        "x.npz",
    ),
    "npz of nothing": (lambda root: zipped(root / "x.npz", x=npy(np.zeros((9, 0)))), "has 0 bytes"),
    "npz claims": (
        lambda root: zipped(root / "x.npz", x=npy(PIXELS).replace(b"(6, 5, 4, 3)", b"(9**9, 4, 3)")),
        "not a readable array",
    ),
    "npz claims more": (
        lambda root: zipped(root / "x.npz", x=npy(PIXELS).replace(b"(6, 5, 4, 3)", b"(99999999,3)")),
        "it ends after",
    ),
    "npz other": (lambda root: zipped(root / "x.npz", z=npy(PIXELS)), "x and y are needed"),
    "idx alone": (lambda root: write_raw(root / "t-images-idx3-ubyte", b""), "no labels file"),
    "no JSON": (lambda root: write_raw(root / "x.jsonl", b'{"text": "a", "label": 1}\n{\n'), "row 2: it is not JSON"),
    "no UTF-8": (lambda root: write_raw(root / "x.csv", b"text,label\na,1\n\xff,0\n"), "row 2: it is not UTF-8"),
    "half": (lambda root: write_raw(root / "x.jsonl", b'{"text": "\\ud800", "label": 1}\n'), "half a character"),
    "no text": (lambda root: write_raw(root / "x.jsonl", b'{"a": 1}\n'), "row 1: no text among its columns"),
    "empty texts": (lambda root: write_raw(root / "x.jsonl", b""), "row 1: there is none"),
    "gzip cut": (
        lambda root: write_raw(root / "x.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n' * 999)[:-20]),
        "cannot be read",
    ),
    "a link": (lambda root: linked(tree(root / "tree")), "leads outside"),
}


def linked(root: Path) -> Path:
    (root / "a" / "link.png").symlink_to("/etc/hostname")
    return root


@pytest.mark.parametrize("name", BAD)
def test_bad_sets_are_refused_by_name(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(OstiaryError) as caught:
        rows(make(tmp_path))
    assert words in str(caught.value) and caught.value.exit_code == 2
    assert str(tmp_path) not in str(caught.value) or name == "nothing"


def test_missing_parts_are_told(tmp_path: Path) -> None:
    made = sets(tmp_path)
    for kind in ("tree", "shards", "npz"):
        with pytest.raises(NoPart, match="has no test part"):
            rows(made[kind][0], "test")


def test_images_need_no_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=PIXELS, y=np.arange(6))
    table(tmp_path / "t.parquet")
    code = (
        "import sys\nfrom ostiary.provenance.samples.reading import read_samples\n"
        f"for name in ('x.npz', 't.parquet'): list(read_samples({str(tmp_path)!r} + '/' + name).samples)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def manifest_of(path: Path, spec: Path | str, **how: Any) -> tuple[Summary, SampleManifest]:
    reading = read_samples(spec, source=how.get("source"), source_field=how.get("source_field"))
    about = about_set("set", reading.kind, "train", how.get("source_field"))
    return write_manifest(path, about, reading.samples), SampleManifest(path)


def test_data_are_held_against_their_manifest(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    _, manifest = manifest_of(tmp_path / "m", root, source="somewhere")
    assert list(against_data(manifest, root)) == []
    (root / "a" / "0.jpg").rename(root / "b" / "0.jpg")
    (root / "c" / "4.bmp").write_bytes(encoded(0, "BMP"))
    found = [(one.what, one.id) for one in against_data(manifest, root)]
    assert found == [("removed", "a/0.jpg"), ("added", "b/0.jpg"), ("altered", "c/4.bmp")]


def test_a_source_that_changed_is_told_where_a_column_says_it(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", origin=["a", "b", "a", "c"])
    _, manifest = manifest_of(tmp_path / "m", path, source_field="origin")
    assert list(against_data(manifest, path)) == []
    table(path, origin=["a", "b", "b", "c"], label=[1, 0, 1, 0])
    found = [(one.what, one.id, one.before, one.after) for one in against_data(manifest, path)]
    assert found == [("moved", "t:2", "a", "b"), ("relabelled", "t:3", "1", "0")]


def test_data_of_another_kind_are_not_compared(tmp_path: Path) -> None:
    _, manifest = manifest_of(tmp_path / "m", tree(tmp_path / "tree"), source="s")
    np.savez(tmp_path / "x.npz", x=PIXELS, y=np.arange(6))
    with pytest.raises(ConfigError, match="of the kind file, the other's array"):
        list(against_data(manifest, tmp_path / "x.npz"))


def description(root: Path, spec: Path, **how: Any) -> tuple[Summary, Path]:
    """A manifest of a set, and the description of both."""
    summary, _ = manifest_of(root / "set.manifest", spec, **({"source": "s"} | how))
    path = root / "set.json"
    value = described(path, summary, read_samples(spec), root / "set.manifest")
    path.write_text(json.dumps(value))
    return summary, path


def test_what_is_described_is_read_back_with_the_same_root(tmp_path: Path) -> None:
    for number, (make, how) in enumerate(
        [
            (lambda root: table(root / "t.parquet", id=list("wxyz")), {}),
            (lambda root: table(root / "t.parquet", origin=list("aabb")), {"source_field": "origin", "source": None}),
            (lambda root: sets(root)["shards"][0], {}),
            (lambda root: jsonl(root / "x.jsonl", {"id": "a", "text": "t", "label": "l", "input": "more"}), {}),
            (lambda root: write_raw(root / "x.csv", b"text,label\na,1\nb,0\n"), {}),
            (lambda root: jsonl(root / "x.jsonl", {"text": "t"}), {}),
        ]
    ):
        root = tmp_path / str(number)
        root.mkdir()
        summary, path = description(root, make(root), **how)
        again, _ = manifest_of(root / "again", path, source="s")
        assert again.root == summary.root, number
        value = json.loads(path.read_text())
        assert value["ostiary:samplesRoot"] == summary.root.hex()
        sheet = next(one for one in value["distribution"] if one["@id"] == "set.manifest")
        assert sheet["sha256"] == summary.sha256.hex() and str(tmp_path) not in path.read_text()


def test_sets_that_are_no_tables_are_described_without_records(tmp_path: Path) -> None:
    made = sets(tmp_path)
    for kind, files in (("npz", {"plain.npz"}), ("tree", set()), ("talk", {"talk.jsonl.gz"})):
        root = tmp_path
        _, path = description(root, made[kind][0])
        value = json.loads(path.read_text())
        assert "recordSet" not in value
        assert {one["@id"] for one in value["distribution"]} == {*files, "set.manifest"}
        (root / "set.manifest").unlink()
    summary, _ = manifest_of(tmp_path / "m", made["npz"][0], source="s")
    reading = read_samples(made["npz"][0])
    with pytest.raises(DataError, match="does not lie under"):
        described(tmp_path / "elsewhere" / "x.json", summary, reading, tmp_path / "m")


Edit = Callable[[dict[str, Any]], Any]
CROISSANTS: dict[str, tuple[Edit, str, int]] = {
    "1.1": (lambda v: v.update(conformsTo="http://mlcommons.org/croissant/1.1"), "", 0),
    "prefixes": (
        lambda v: v.update({"cr:recordSet": v.pop("recordSet"), "dct:conformsTo": v.pop("conformsTo")}),
        "",
        0,
    ),
    "no version": (lambda v: v.pop("conformsTo"), "no Croissant description", 2),
    "2": (lambda v: v.update(conformsTo="http://mlcommons.org/croissant/2.0"), "no Croissant description", 2),
    "no digest": (lambda v: v["distribution"][0].pop("sha256"), "has no sha256", 2),
    "address as digest": (lambda v: v["distribution"][0].update(sha256="https://x"), "has no sha256", 2),
    "other digest": (lambda v: v["distribution"][0].update(sha256="00" * 32), "OS754", 1),
    "remote": (lambda v: v["distribution"][0].update(contentUrl="https://x.org/t.csv"), "no file beside it", 2),
    "above": (lambda v: v["distribution"][0].update(contentUrl="../x.csv"), "no file beside it", 2),
    "absolute": (lambda v: v["distribution"][0].update(contentUrl="/etc/passwd"), "no file beside it", 2),
    "missing": (lambda v: v["distribution"][0].update(contentUrl="none.csv"), "there is no file", 2),
    "archive": (lambda v: v["distribution"][0].update(containedIn={"@id": "x.zip"}), "lies in an archive", 2),
    "no records": (lambda v: v.update(recordSet=[]), "its record sets are none", 2),
    "two records": (lambda v: v["recordSet"].append({**v["recordSet"][0], "@id": "more"}), "samples, more", 2),
    "no content": (lambda v: v["recordSet"][0]["field"].pop(0), "0 columns of images or text", 2),
    "no such column": (
        lambda v: v["recordSet"][0]["field"][0]["source"]["extract"].update(column="none"),
        "no column 'none'",
        2,
    ),
    "files unlisted": (
        lambda v: v["recordSet"][0]["field"][0]["source"].update(fileObject={"@id": "other"}),
        "its fields are of 2 files",
        2,
    ),
    "set of nothing": (lambda v: v["distribution"].pop(0), "no file objects for", 2),
    "a list": (lambda v: [v], "no Croissant description", 2),
    "odd shapes": (lambda v: v.update(recordSet=3, distribution={"a": 1}), "its record sets are none", 2),
}


@pytest.mark.parametrize("name", CROISSANTS)
def test_descriptions_are_enforced(tmp_path: Path, name: str) -> None:
    edit, words, code = CROISSANTS[name]
    _, path = description(tmp_path, write_raw(tmp_path / "x.csv", b"text,label\na,1\nb,0\n"))
    value = json.loads(path.read_text())
    made = edit(value)
    path.write_text(json.dumps(made if isinstance(made, list) else value))
    if not code:
        assert len(rows(path)) == 2
        return
    with pytest.raises(OstiaryError) as caught:
        rows(path)
    assert words in str(caught.value) and caught.value.exit_code == code


def test_one_record_set_of_several_is_named(tmp_path: Path) -> None:
    _, path = description(tmp_path, write_raw(tmp_path / "x.csv", b"text,label\na,1\nb,0\n"))
    value = json.loads(path.read_text())
    value["recordSet"].append({**value["recordSet"][0], "@id": "more"})
    path.write_text(json.dumps(value))
    assert rows(f"{path}#more") == rows(tmp_path / "x.csv")
    assert read_samples(f"{path}#more").name == "set:more"
    with pytest.raises(DataError, match="no record set 'none'"):
        rows(f"{path}#none")


def test_a_description_that_names_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "x.json", b'{"conformsTo": "a", "conformsTo": "http://mlcommons.org/croissant/1.0"}')
    with pytest.raises(Refused, match="OS722"):
        read_samples(path)
    with pytest.raises(FormatError):
        read_samples(write_raw(tmp_path / "y.json", b"{}"))


def test_a_described_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    _, path = description(tmp_path, write_raw(tmp_path / "x.csv", b"text,label\na,1\nb,0\n"))
    reading = read_samples(path)
    next(reading.samples)
    (tmp_path / "x.csv").write_bytes(b"text,label\na,1\nb,0\nc,1\n")
    with pytest.raises(Refused, match="OS706"):
        list(reading.samples)
