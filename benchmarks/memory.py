"""Peak memory of screening a large set and of guarding inputs, over what the libraries and the model take anyway.

    python -m benchmarks.memory                              # 50,000 images of 224x224, about 20 minutes
    python -m benchmarks.memory --set small                  # 50,000 and 500,000 images of 32x32, about 15 minutes
    OSTIARY_DATA=DIR python -m benchmarks.memory --set cifar10   # the 48,000 of CIFAR-10

A set that does not fit into memory must still be screened, so screening streams. Each stage runs in a fresh process
with a small model of the user's own; the figure is that process's peak resident memory less that of a process which
only imports the libraries and loads the model. All methods in one run start from nothing, single ones from what
that run left in the cache. The claim held against it: less than 1 GB (10^9 bytes).

The 224x224 and 32x32 sets are synthetic: 500 distinct JPEG pictures, each repeated under many ids and labels, which
costs as much to read as a real set of its size.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from benchmarks.common import Records, data_root, note, parse, parser
from PIL import Image
from torch import nn

from ostiary.api import Options, fit_guard, screen_data
from ostiary.core.files import atomic
from ostiary.core.records import Record
from ostiary.data import open_data, trusted_subset, write_parquet
from ostiary.guard.fitted import load_guard
from ostiary.guard.flow import score
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model, save_model

CLASSES, DISTINCT, TRUSTED, LIMIT = 10, 500, 300, 1e9
SIDES = {"synthetic": 224, "small": 32, "cifar10": 32}
IMAGES = {"synthetic": (50_000,), "small": (50_000, 500_000)}
WIDTHS = {"synthetic": 32, "small": 128, "cifar10": 32}
"""Features of the last layer."""
TABLE = "peak memory"
SCREENS = ("spectral-signatures", "activation-clustering", "scan", "spectre", "fusion")


class Tiny(nn.Module):
    """A small network as a user might bring: two strided convolutions and a linear layer."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.input_shape = (3, side, side)
        stride = max(2, side // 28)
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride, 2), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, side, side] to logits [n, 10]."""
        logits: torch.Tensor = self.head(self.features(x).flatten(1))
        return logits


def tiny(which: str) -> nn.Module:
    """The network for a set."""
    return Tiny(SIDES[which], WIDTHS[which])


def tiny_synthetic() -> nn.Module:
    """As a user names it in a file of their own."""
    return tiny("synthetic")


def tiny_small() -> nn.Module:
    """The same."""
    return tiny("small")


def tiny_cifar10() -> nn.Module:
    """The same."""
    return tiny("cifar10")


def write_synthetic(path: Path, images: int, side: int) -> None:
    """A Parquet file of repeated JPEG pictures in the form of Hugging Face `datasets`."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(DISTINCT, images)):
        buffer = BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=75)
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64()), ("id", pa.string())])
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for begin in range(0, images, 1000):
            rows = range(begin, min(begin + 1000, images))
            columns = (
                [pictures[row % len(pictures)] for row in rows],
                rng.integers(0, CLASSES, len(rows)).tolist(),
                [str(row) for row in rows],
            )
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))


def peak() -> int:
    """The peak resident memory of this process in bytes.

    VmHWM where there is one: a child's `ru_maxrss` starts from its parent's, which has nothing to do with it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _load(folder: Path, which: str) -> TorchClassifier:
    return load_model(folder / f"{which}.safetensors", f"benchmarks.memory:tiny_{which}")


def baseline(folder: Path, which: str) -> int:
    """Libraries and model alone."""
    _load(folder, which)
    return peak()


def screen(folder: Path, which: str, data: Path, methods: tuple[str, ...]) -> int:
    """Screening of the whole set."""
    _checked(screen_data(data, _load(folder, which), methods=methods))
    return peak()


def fit(folder: Path, which: str) -> int:
    """Fitting the guard on the trusted images."""
    _checked(
        fit_guard(
            _load(folder, which),
            folder / f"{which}-trusted.parquet",
            folder / f"{which}-guard.safetensors",
            method="strip",
        )
    )
    return peak()


def guard(folder: Path, which: str, data: Path, inputs: int) -> int:
    """Scoring inputs with the fitted guard."""
    part = trusted_subset(open_data(data), inputs, seed=1)
    fitted = load_guard(folder / f"{which}-guard.safetensors")
    _checked(score(_load(folder, which), fitted, part, options=Options()))
    return peak()


def _checked(record: Record) -> None:
    """A method that failed early would look frugal."""
    bad = [f"{result.method}: {result.status}: {result.reason}" for result in record.results if result.status != "ok"]
    if bad or not record.results:
        raise RuntimeError("; ".join(bad) or "no method ran")


def in_fresh_process(function: Callable[..., int], *args: Any) -> tuple[int, float]:
    """What `function` returns in a new process, and the seconds it took."""
    begun = time.monotonic()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result(), time.monotonic() - begun


def measure(which: str, data: Path, folder: Path, images: int, inputs: int, records: Records) -> None:
    """All stages on one set."""
    side = SIDES[which]
    torch.manual_seed(0)
    save_model(TorchClassifier(tiny(which), CLASSES, (3, side, side)), folder / f"{which}.safetensors")
    write_parquet(folder / f"{which}-trusted.parquet", trusted_subset(open_data(data), TRUSTED, seed=0))
    key = f"{images} images of {side}x{side}"
    floor, _ = in_fresh_process(baseline, folder, which)
    stages: list[tuple[str, int, tuple[Any, ...]]] = [
        ("screen: all in one run", images, (screen, folder, which, data, SCREENS))
    ]
    stages += [(f"screen: {name}", images, (screen, folder, which, data, (name,))) for name in SCREENS]
    stages.append((f"guard fit: strip on {TRUSTED} trusted", TRUSTED, (fit, folder, which)))
    stages.append((f"guard score: strip on {inputs}", inputs, (guard, folder, which, data, inputs)))
    wanted = [stage for stage in stages if not records.has(TABLE, f"{key}, {stage[0]}")]
    for name, n, call in stages:
        # Scoring needs the fitted guard, which a finished row of an earlier run has not left behind.
        if (name, n, call) not in wanted and not (call[0] is fit and any(one[2][0] is guard for one in wanted)):
            continue
        note(f"{key}: {name}")
        found, seconds = in_fresh_process(*call)
        over = found - floor
        figures = {
            "peak (MB)": found / 1e6,
            "libraries and model (MB)": floor / 1e6,
            "over them (MB)": over / 1e6,
            "below 1 GB": over < LIMIT,
            "set decoded (MB)": images * side * side * 3 / 1e6,
        }
        records.add(TABLE, f"{key}, {name}", figures, seeds=[0], n=n, seconds=seconds)


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--set", choices=SIDES, default="synthetic", help="set to screen (default synthetic)")
    made.add_argument("--images", type=int, nargs="*", help="sizes of the synthetic set (default as above)")
    made.add_argument("--inputs", type=int, default=2000, help="inputs to score with the guard (default 2000)")
    made.add_argument("--work", type=Path, help="folder for temporary files (default: a temporary one)")
    return parse(made)


def main() -> None:
    """Measure what is not recorded yet."""
    args = arguments()
    root = data_root("cifar10/train.parquet") if args.set == "cifar10" else Path()
    records = Records("memory", "Peak memory", (__doc__ or "").split("\n\n")[2].replace("\n", " "), args)
    if args.set == "cifar10":
        paths = {len(open_data(root / "cifar10" / "train.parquet")): root / "cifar10" / "train.parquet"}
    else:
        paths = dict.fromkeys(args.images or IMAGES[args.set])
    for images, path in paths.items():
        with tempfile.TemporaryDirectory(dir=args.work) as name:
            folder = Path(name)
            os.environ |= {"OSTIARY_RUNS": str(folder / "runs"), "OSTIARY_CACHE": str(folder / "cache")}
            data = path or folder / "synthetic.parquet"
            if path is None:
                note(f"writing {images} images")
                write_synthetic(data, images, SIDES[args.set])
            measure(args.set, data, folder, images, args.inputs, records)
    records.show()


if __name__ == "__main__":
    main()
