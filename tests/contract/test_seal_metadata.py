"""Poison must not show in anything but the pixels and labels: not in ids, order, sizes, codecs or time stamps."""

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import rankdata

from ostiary.attacks.alteration import Alteration
from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.injection import Injection
from ostiary.attacks.label_flip import LabelFlip
from ostiary.attacks.truth import Poisoned
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, digits, load_uint8, open_data, write_parquet
from ostiary.data.write import encode_png

NUMBERS = ("id", "row", "row group", "place in row group")
CODEC = ("encoded bytes", "header", "chunks", "zlib header", "mode", "path", "id length", "other columns")
FILES = ("time stamp", "file")
PERMUTATIONS = 1000


def chunks_of(png: bytes) -> tuple[tuple[bytes, int], ...]:
    """Kind and length of every PNG chunk."""
    at, found = 8, []
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        found.append((kind, length))
        at += 12 + length
    return tuple(found)


def metadata(path: Path) -> list[dict[str, Any]]:
    """All that is known of every sample without its pixels and its label."""
    file = pq.ParquetFile(path)
    stamp = os.stat(path).st_mtime_ns
    found: list[dict[str, Any]] = []
    for group in range(file.num_row_groups):
        for place, row in enumerate(file.read_row_group(group).to_pylist()):
            png = row["image"]["bytes"]
            with Image.open(io.BytesIO(png)) as image:
                mode = (image.format, image.mode, image.size, tuple(sorted(image.info)))
            at = png.find(b"IDAT") + 4
            found.append(
                {
                    "id": int(row["id"]),
                    "row": len(found),
                    "row group": group,
                    "place in row group": place,
                    "encoded bytes": len(png),
                    "header": png[:33],
                    "chunks": chunks_of(png),
                    "zlib header": png[at : at + 2],
                    "mode": mode,
                    "path": row["image"]["path"],
                    "id length": len(row["id"]),
                    "other columns": tuple(sorted(set(row) - {"image", "label", "id"})),
                    "time stamp": stamp,
                    "file": path.name,
                }
            )
    return found


def auroc(ranks: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve from the ranks of the scores (ties share their mean rank)."""
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


def leaks(rows: list[dict[str, Any]], poisoned: np.ndarray) -> list[str]:
    """The names of all that tells poison apart.

    Numbers leak when their AUROC leaves [0.4, 0.6], or lies a fifth beyond the farthest that shuffled
    flags give. Everything else leaks as soon as it differs at all.
    """
    rng = np.random.default_rng(0)
    found = []
    for name in NUMBERS:
        ranks = rankdata([row[name] for row in rows])
        by_chance = max(abs(auroc(ranks, rng.permutation(poisoned)) - 0.5) for _ in range(PERMUTATIONS))
        if abs(auroc(ranks, poisoned) - 0.5) > min(0.1, 1.2 * by_chance):
            found.append(name)
    return found + [name for name in (*CODEC, *FILES) if len({row[name] for row in rows}) > 1]


def flags(poisoned: Poisoned, path: Path) -> np.ndarray:
    """Which samples of the written set are poisoned, by the ids the file holds."""
    ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
    return np.array([identity in poisoned.truth.poisoned for identity in ids])


@pytest.fixture(
    scope="module", params=["badnets", "blended", "all-to-all", "low-rate", "grey", "flip", "copies", "noise", "mosaic"]
)
def poisoned(request: pytest.FixtureRequest) -> Poisoned:
    source: ImageSet = digits("train")
    if request.param == "grey":
        source = ArraySet(load_uint8(source)[:, :1], source.labels, source.classes, source.ids)
    attack = {
        "badnets": BadNets(rate=0.1),
        "blended": Blended(rate=0.1),
        "all-to-all": BadNets(rate=0.2, mapping="all-to-all"),
        "low-rate": BadNets(rate=0.05, target=3),
        "grey": BadNets(rate=0.1, patch="white-square"),
        "flip": LabelFlip(rate=0.1),
        "copies": Injection(rate=0.1),
        "noise": Injection(rate=0.1, what="noise"),
        "mosaic": Alteration(rate=0.1),
    }[request.param]
    return attack.poison(source, run=Run(seed=11))


def test_a_written_set_tells_nothing_but_pixels_and_labels(poisoned: Poisoned, tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    write_parquet(path, poisoned.data)
    hit = flags(poisoned, path)
    assert hit.sum() == len(poisoned.truth.poisoned) > 60
    rows = metadata(path)
    assert len({row["row group"] for row in rows}) > 1, "one row group cannot tell poison apart"
    assert leaks(rows, hit) == []
    assert [file.name for file in tmp_path.iterdir()] == ["set.parquet"], "truth lies beside the set only when asked"


def test_nothing_of_the_source_is_in_the_file(poisoned: Poisoned, tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    write_parquet(path, poisoned.data)
    whole = path.read_bytes()
    for word in (
        b"digits:",
        b"badnets",
        b"blended",
        b"poison",
        b"truth",
        b"trigger",
        poisoned.truth.source_digest.encode(),
    ):
        assert word not in whole
    metadata_of = pq.read_schema(path).metadata
    assert set(metadata_of) == {b"huggingface"}
    features = json.loads(metadata_of[b"huggingface"])["info"]["features"]
    assert set(features) == {"image", "label", "id"}
    opened = open_data(path)
    assert opened.name == "set.parquet" and torch.equal(opened.labels, poisoned.data.labels)


def test_the_same_set_gives_the_same_bytes(poisoned: Poisoned, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_parquet(tmp_path / name, poisoned.data)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- the same checks catch a careless writer ----------------------------------------------------

Encode = Callable[[torch.Tensor, bool], bytes]


def write_rows(path: Path, data: ImageSet, order: np.ndarray, ids: list[str], encode: Callable[..., bytes]) -> None:
    pixels = load_uint8(data)
    table = pa.table(
        {
            "image": [{"bytes": encode(pixels[row], row), "path": None} for row in order.tolist()],
            "label": data.labels[order].tolist(),
            "id": ids,
        }
    )
    pq.write_table(table, path, row_group_size=500)


def compressed(image: torch.Tensor, level: int, **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG", compress_level=level, **save)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "caught"),
    [
        ("careful", set()),
        ("poison-last", {"row", "row group", "id"}),
        ("poison-first-in-each-group", {"place in row group"}),
        ("ids-of-the-source", {"id"}),
        ("compressed-alike", {"encoded bytes", "chunks"}),
        ("other-level", {"zlib header"}),
        ("other-codec", {"encoded bytes", "header", "mode"}),
        ("text-chunk", {"chunks", "mode"}),
    ],
)
def test_a_careless_writer_is_caught(kind: str, caught: set[str], tmp_path: Path) -> None:
    poisoned = BadNets(rate=0.1).poison(digits("train"), run=Run(seed=11))
    data, n = poisoned.data, len(poisoned.data)
    hit = np.array([identity in poisoned.truth.poisoned for identity in data.ids])
    order, ids = np.arange(n), list(data.ids)
    encode: Callable[[torch.Tensor, int], bytes] = lambda image, row: encode_png(image)  # noqa: E731 - replaced below
    if kind == "poison-last":
        order = np.argsort(hit, kind="stable")
    elif kind == "poison-first-in-each-group":
        order = np.concatenate([part[np.argsort(~hit[part], kind="stable")] for part in np.split(order, [500, 1000])])
    elif kind == "ids-of-the-source":
        ids = [f"{number:06d}" for number in np.where(hit, order + n, order)]
    elif kind == "compressed-alike":
        encode = lambda image, row: compressed(image, 6)  # noqa: E731 - one expression says it best
    elif kind == "other-level":
        encode = lambda image, row: compressed(image, 9 if hit[row] else 1)  # noqa: E731 - as above
    elif kind == "other-codec":
        encode = lambda image, row: jpeg(image) if hit[row] else encode_png(image)  # noqa: E731 - as above
    elif kind == "text-chunk":
        encode = lambda image, row: texted(image) if hit[row] else encode_png(image)  # noqa: E731 - as above
    path = tmp_path / "set.parquet"
    write_rows(path, data, order, ids, encode)
    found = set(leaks(metadata(path), hit[order]))
    assert caught <= found and bool(found) == bool(caught), found


def jpeg(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95)
    # A JPEG has no PNG chunks: the first 33 bytes and the size tell enough.
    return buffer.getvalue()


def texted(image: torch.Tensor) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "x")
    return compressed(image, 0, pnginfo=info)
