"""How the cost of a scan grows with the number of classes, from 10 to 1,000.

    make bench-classes

A small CNN with random weights and a head of as many classes is scanned with all methods of the standard preset, on
32x32 images, so that the backbone costs the same everywhere. The usual search takes as many steps for every class, so
that its cost grows as the number of classes does; here most classes are dropped early. Passes are images through the
network, forwards and backwards, that drive the searches. Seconds are those of the whole scan, with the rates on
held-out images. On two cores: about 20 minutes.
"""

import argparse
import statistics
import time

import torch
from benchmarks.common import Records, parse, parser

from ostiary.core.plan import plan
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

TABLE = "one model, standard preset"
IMAGES = 256
"""Trusted images at least, so that every batch is full whatever the number of classes."""


def measure(classes: int, repeats: int, records: Records, base: dict[str, float] | None) -> dict[str, float]:
    """Median seconds, and passes, of scans of a model with so many classes."""
    begun, model = time.monotonic(), TorchClassifier(build("small-cnn", classes, seed=0), classes, (3, 32, 32))
    rng = torch.Generator().manual_seed(0)
    images = max(IMAGES, 4 * classes)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=rng, dtype=torch.uint8)
    trusted = ArraySet(pixels, torch.arange(images) % classes, list(map(str, range(classes))), name="noise")
    seconds, passes = [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        passes = sum(method.scan(model, trusted, run=Run(seed=0)).passes or 0 for method in plan("scan"))
        seconds.append(time.perf_counter() - start)
    own = {"seconds": statistics.median(seconds), "passes": passes}
    figures = dict(own)
    if base is not None:
        figures |= {f"times the {name} of 10 classes": own[name] / base[name] for name in own}
        figures["times the classes"] = classes / 10
    records.add(TABLE, f"{classes} classes", figures, seeds=[0], n=repeats, seconds=time.monotonic() - begun)
    return own


def main() -> None:
    """Measure what is not recorded yet."""
    made = parser(__doc__)
    made.add_argument("--classes", type=int, nargs="+", default=[10, 43, 100, 1000], help="numbers of classes")
    made.add_argument("--repeats", type=int, default=1, help="scans of each (default 1)")
    args: argparse.Namespace = parse(made)
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("scan_classes", "The standard preset by the number of classes", about, args)
    base: dict[str, float] | None = None
    for classes in args.classes:
        found = records.find(TABLE, f"{classes} classes")
        known = records.has(TABLE, f"{classes} classes") and found is not None
        own = found["figures"] if known and found else measure(classes, args.repeats, records, base)
        base = own if classes == 10 else base
    records.show()


if __name__ == "__main__":
    main()
