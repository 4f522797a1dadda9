"""How the cost of Neural Cleanse grows with the number of classes, from 10 to 1,000.

    make bench-classes

A small CNN with random weights and a head of as many classes is scanned with the quick preset, on 32x32 images, so that
the backbone costs the same everywhere. The usual search takes as many steps for every class, so that its cost grows as
the number of classes does; here most classes are dropped early. Passes are images through the network, forwards and
backwards, that drive the search. Seconds are those of the whole scan, with the rates on held-out images. On two cores:
about 15 minutes.
"""

import argparse
import time

import torch
from benchmarks.common import Records, parse, parser

from ostiary.core.plan import PRESETS
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.scan.neural_cleanse import NeuralCleanse

TABLE = "one model, quick preset"
IMAGES = 256
"""Trusted images at least, so that every batch is full whatever the number of classes."""
STEPS = PRESETS["scan"]["quick"]["scan.neural-cleanse"]["steps"]


def measure(classes: int, repeats: int, records: Records, base: float | None) -> float:
    """The median seconds of a scan of a model with so many classes."""
    begun, model = time.monotonic(), TorchClassifier(build("small-cnn", classes, seed=0), classes, (3, 32, 32))
    rng = torch.Generator().manual_seed(0)
    images = max(IMAGES, 4 * classes)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=rng, dtype=torch.uint8)
    trusted = ArraySet(pixels, torch.arange(images) % classes, list(map(str, range(classes))), name="noise")
    seconds, method = [], NeuralCleanse(steps=STEPS)
    for _ in range(repeats):
        start = time.perf_counter()
        found = method.recovered(model, trusted, Run(seed=0)).found
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds)[len(seconds) // 2]
    share = found.passes / (classes * STEPS * method.batch)
    figures = {"seconds": median, "passes": found.passes, "share of the passes without drops": share}
    if base is not None:
        figures |= {"times the seconds of 10 classes": median / base, "times the classes": classes / 10}
    records.add(TABLE, f"{classes} classes", figures, seeds=[0], n=repeats, seconds=time.monotonic() - begun)
    return median


def main() -> None:
    """Measure what is not recorded yet."""
    made = parser(__doc__)
    made.add_argument("--classes", type=int, nargs="+", default=[10, 43, 100, 1000], help="numbers of classes")
    made.add_argument("--repeats", type=int, default=3, help="scans of each (default 3)")
    args: argparse.Namespace = parse(made)
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("scan_classes", "Neural Cleanse by the number of classes", about, args)
    base: float | None = None
    for classes in args.classes:
        found = records.find(TABLE, f"{classes} classes")
        known = records.has(TABLE, f"{classes} classes") and found is not None
        seconds = found["figures"]["seconds"] if known and found else measure(classes, args.repeats, records, base)
        base = seconds if classes == 10 else base
    records.show()


if __name__ == "__main__":
    main()
