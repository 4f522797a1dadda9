"""Seconds of screening 48,000 CIFAR-10 images with all methods, beside one forward pass; reductions beside the usual.

    OSTIARY_DATA=DIR python -m benchmarks.screen_speed

The images are in memory as bytes, as a pass over them is the floor: the forward pass through the network as screening
runs it (batch normalisation folded, channels last), with nothing kept. Cold is the same pass with features, logits
and thumbnails kept, then all methods that need no trusted samples and those that do, 500 images beside them; warm is
the same once more, from the cache on the disk, in a process that holds nothing. The networks have random weights, which
changes no time. The other rows are of single steps on 5,000 samples of one class: the top direction by our way and by
a full singular value decomposition, and the reduction to ten dimensions by our way, by FastICA and by a full
decomposition, with the adjusted Rand index of the two groups that 2-means finds. Blocks run in turn; medians count.

Two cores: about 15 minutes.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from benchmarks.common import Records, data_root, note, parse, parser
from sklearn.decomposition import PCA, FastICA
from sklearn.metrics import adjusted_rand_score

from ostiary.core.execute import execute
from ostiary.core.plan import plan
from ostiary.core.run import Run
from ostiary.data import ArraySet, batch_size, load_uint8, open_data, trusted_subset
from ostiary.inputs import have_of
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build
from ostiary.screen.features import features_of
from ostiary.screen.parting import two_means
from ostiary.screen.spectral_signatures import _split
from ostiary.screen.summary import summariser

NETWORKS = (("small-cnn", None), ("wrn-16-1", None), ("resnet18", 16))
REPEATS = 3
SCREENING, STEPS = "screening 48,000 images", "steps on one class"
CLASS, DIMENSIONS, GROUP = 5000, 512, 500


def median(block: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median seconds of a block."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        block()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def floor(model: TorchClassifier, data: ArraySet) -> None:
    """One bare pass."""
    quick = fused_inference(model, channels_last=True)
    with torch.no_grad():
        for x, _ in data.batches(batch_size(model.input_shape)):
            quick.logits(x)


def screening(model: TorchClassifier, data: ArraySet, trusted: ArraySet) -> dict[str, float]:
    """Seconds of every method of the preset `thorough`, and of the features before them."""
    begun, run = time.perf_counter(), Run()
    for one in (data, trusted):
        features_of(model, one, run)
    found = {"features": time.perf_counter() - begun}
    have = replace(have_of(model, trusted), training_data=True)
    for method in plan("screen", preset="thorough"):
        summarise = summariser(data, method.card)
        done = execute(method, data, model, trusted, run=Run(), have=have, classes=data.classes, summarise=summarise)
        if done.result.status != "ok":
            raise RuntimeError(f"{method.card.id}: {done.result.reason}")
        found[method.card.name] = done.result.seconds
    return found


def one_network(arch: str, width: int | None, data: ArraySet, trusted: ArraySet) -> dict[str, Any]:
    """Floor, cold and warm seconds of one network."""
    module = build(arch, 10, width=width, seed=0)
    floors, colds, warms = [], [], []
    for repeat in range(REPEATS):
        model = TorchClassifier(module, data.classes, data.shape, arch=arch)
        with tempfile.TemporaryDirectory() as cache:
            os.environ["OSTIARY_CACHE"] = cache
            floors.append(median(lambda model=model: floor(model, data), 1))  # type: ignore[misc]
            colds.append(screening(model, data, trusted))
            again = TorchClassifier(module, data.classes, data.shape, arch=arch)  # nothing of it is in memory
            warms.append(screening(again, data, trusted))
        note(f"{arch}: {repeat + 1} of {REPEATS}: floor {floors[-1]:.1f} s, cold {sum(colds[-1].values()):.1f} s")
    bare = statistics.median(floors)
    cold, warm = (statistics.median(sum(one.values()) for one in rows) for rows in (colds, warms))
    each = {name: statistics.median(one[name] for one in colds) for name in colds[0]}
    return {
        "floor, s": bare,
        "cold, s": cold,
        "cold over floor": cold / bare,
        "warm, s": warm,
        "warm over floor": warm / bare,
        **{f"{name}, s": value for name, value in each.items()},
    }


def single_steps(records: Records) -> None:
    """The top direction and the reduction, ours and the usual."""
    rng = np.random.default_rng(0)
    scales = 1.0 / np.sqrt(1 + np.arange(DIMENSIONS))
    features = (rng.normal(size=(CLASS, DIMENSIONS)) * scales).astype(np.float32)
    features[:GROUP, :20] += 0.6  # a tenth of the class stands apart
    centred = features - features.mean(0)

    def usual() -> np.ndarray:
        return (centred @ np.linalg.svd(centred, full_matrices=False)[2][0]) ** 2

    begun = time.monotonic()
    theirs, ours = usual(), _split(features).scores
    figures = {
        "ours, s": median(lambda: _split(features)),
        "full SVD, s": median(usual),
        "largest difference, share of the largest score": float(np.abs(theirs - ours).max() / theirs.max()),
    }
    figures["times as fast"] = figures["full SVD, s"] / figures["ours, s"]
    records.add(STEPS, "top direction", figures, seeds=[0], n=CLASS, seconds=time.monotonic() - begun)
    begun = time.monotonic()
    groups = {
        name: two_means(made.fit_transform(features)).labels_
        for name, made in (("ours", PCA(10, random_state=0)), ("full", PCA(10, svd_solver="full")))
    }
    fast = FastICA(10, random_state=0, whiten="unit-variance", max_iter=200)
    figures = {
        "ours, s": median(lambda: PCA(10, random_state=0).fit_transform(features)),
        "FastICA, s": median(lambda: fast.fit_transform(features)),
        "ARI of ours with a full decomposition": float(adjusted_rand_score(groups["ours"], groups["full"])),
    }
    figures["times as fast"] = figures["FastICA, s"] / figures["ours, s"]
    records.add(STEPS, "reduction to ten", figures, seeds=[0], n=CLASS, seconds=time.monotonic() - begun)


def main() -> None:
    """Time what is not recorded yet."""
    args = parse(parser(__doc__))
    root = data_root("cifar10")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("screen_speed", "Speed of screening", about, args)
    if not records.has(STEPS, "reduction to ten"):
        single_steps(records)
    opened = open_data(root / "cifar10" / "train.parquet")
    data = ArraySet(load_uint8(opened), opened.labels, opened.classes)
    test = open_data(root / "cifar10" / "test.parquet")
    few = trusted_subset(test, 500, seed=0)
    trusted = ArraySet(load_uint8(few), few.labels, few.classes)
    for arch, width in NETWORKS:
        name = arch if width is None else f"{arch}, width {width}"
        if not records.has(SCREENING, name):
            begun = time.monotonic()
            figures = one_network(arch, width, data, trusted)
            records.add(SCREENING, name, figures, seeds=[0], n=len(data), seconds=time.monotonic() - begun)
    records.show()


if __name__ == "__main__":
    main()
