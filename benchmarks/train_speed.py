"""Training speed: ostiary's loop against the loop that everybody writes.

    OSTIARY_DATA=DIR python -m benchmarks.train_speed

Both train the same ResNet-18 on the same CIFAR-10 images with the same augmentation (a crop out of a border of 4
reflected pixels, a mirror image half of the time), optimiser, schedule and batch. The usual loop is a torch
DataLoader over a Dataset that crops and mirrors image by image, in fp32 and NCHW, with the number of workers (0, 1
or 2) that measured quickest. Blocks of both run in turn; medians are compared. At the smallest width both also train
to the end from the same start, and the test accuracies are compared: speed that costs accuracy is no speed. The
precision and the memory layout of ostiary's loop are measured too, since neither is quicker everywhere.

Two cores: about 8 minutes.
"""

import argparse
import time
from functools import partial
from unittest.mock import patch

import torch
from benchmarks.common import Records, data_root, hits, interleaved, note, paired_difference, parse, parser, spread
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset

from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8, open_data, trusted_subset
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, predictions, train
from ostiary.training.flow import new_model
from ostiary.training.loop import Precision

ARCH = "resnet18"
BATCH = 128
BLOCK = 4096
WORKERS = (0, 1, 2)
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
SPEED, ACCURACY, LAYOUT = "images per second", "accuracy after equal training", "precision and layout of ostiary's loop"


class PlainSet(Dataset[tuple[Tensor, int]]):
    """Images that are cropped and mirrored one by one."""

    def __init__(self, data: ImageSet, recipe: Recipe) -> None:
        self.pixels, self.labels, self.recipe = load_uint8(data), data.labels.tolist(), recipe

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x = self.pixels[row].float() / 255
        _, h, w = x.shape
        border = self.recipe.padding
        x = pad(x, (border,) * 4, mode="reflect")
        top, left = torch.randint(0, 2 * border + 1, (2,)).tolist()
        x = x[:, top : top + h, left : left + w]
        if torch.rand(()) < 0.5:
            x = x.flip(-1)
        return x, self.labels[row]


Loader = DataLoader[tuple[Tensor, int]]


def loader(data: ImageSet, recipe: Recipe, workers: int) -> Loader:
    """The loader of the usual loop; its workers stay between epochs."""
    return DataLoader(
        PlainSet(data, recipe), recipe.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def plain_train(model: TorchClassifier, batches: Loader, recipe: Recipe) -> None:
    """The usual loop: fp32, NCHW, one loader."""
    net = model.module.train()
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    steps = len(batches) * recipe.epochs + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    for epoch in range(recipe.epochs):
        for x, y in batches:
            loss = cross_entropy(model.logits(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        note(f"usual loop: epoch {epoch + 1} of {recipe.epochs}")
    net.eval()


def our_block(data: ImageSet, width: int, recipe: Recipe, layout: torch.memory_format = torch.channels_last) -> float:
    """Images per second of one call of ostiary's loop."""
    model = new_model(ARCH, data, width=width, seed=0)
    # The loop asks for torch.channels_last by name; NCHW is the same loop with another answer.
    with patch.object(torch, "channels_last", layout):
        begun = time.perf_counter()
        train(model, data, recipe, run=Run(seed=0))
        return len(data) * recipe.epochs / (time.perf_counter() - begun)


def plain_block(data: ImageSet, width: int, recipe: Recipe, batches: Loader) -> float:
    """Images per second of one call of the usual loop."""
    model = new_model(ARCH, data, width=width, seed=0)
    begun = time.perf_counter()
    plain_train(model, batches, recipe)
    return len(data) * recipe.epochs / (time.perf_counter() - begun)


def measure_speed(data: ImageSet, width: int, repeats: int, records: Records) -> None:
    """Both loops in turn, the usual one with its best number of workers."""
    recipe, begun = Recipe(epochs=1, batch=BATCH), time.monotonic()
    key = f"width {width}"
    if records.has(SPEED, f"{key}, ostiary"):
        return
    loaders = {workers: loader(data, recipe, workers) for workers in WORKERS}
    tried = interleaved(
        {str(workers): partial(plain_block, data, width, recipe, it) for workers, it in loaders.items()}, repeats=2
    )
    best = max(WORKERS, key=lambda workers: max(tried[str(workers)]))
    note(f"the usual loop is quickest with {best} workers")
    blocks = {
        "usual": partial(plain_block, data, width, recipe, loaders[best]),
        "ostiary": partial(our_block, data, width, recipe),
    }
    found = interleaved(blocks, repeats)
    usual, ours = (spread(found[name], "images/s") for name in ("usual", "ostiary"))
    ratios = [o / u for o, u in zip(found["ostiary"], found["usual"], strict=True)]
    seconds, n = time.monotonic() - begun, f"{repeats} blocks of {len(data)} images"
    by_workers = ", ".join(f"{workers}: {max(tried[str(workers)]):.0f}" for workers in WORKERS)
    extra = {"images/s by workers": by_workers, "workers": best}
    records.add(
        SPEED, f"{key}, usual loop", {**usual, "times the usual": 1.0, **extra}, seeds=[0], n=n, seconds=seconds
    )
    # The row that `has` asks for comes last: a stop between the two repeats both.
    ratio = {"times the usual": ours["images/s"] / usual["images/s"], "lowest ratio of a pair": min(ratios)}
    records.add(SPEED, f"{key}, ostiary", {**ours, **ratio}, seeds=[0], n=n, seconds=seconds)


def measure_layout(data: ImageSet, width: int, repeats: int, records: Records) -> None:
    """Ostiary's loop in bf16 and fp32, channels last and NCHW."""
    begun = time.monotonic()
    layouts = {"channels last": torch.channels_last, "NCHW": torch.contiguous_format}
    blocks = {
        f"width {width}, {precision}, {name}": partial(
            our_block, data, width, Recipe(epochs=1, batch=BATCH, precision=precision), layout
        )
        for precision in PRECISIONS
        for name, layout in layouts.items()
    }
    if all(records.has(LAYOUT, name) for name in blocks):
        return
    found = interleaved(blocks, repeats)
    n, seconds = f"{repeats} blocks of {len(data)} images", time.monotonic() - begun
    for name in blocks:
        records.add(LAYOUT, name, spread(found[name], "images/s"), seeds=[0], n=n, seconds=seconds)


def measure_accuracy(
    data: ImageSet, test: ImageSet, width: int, epochs: int, seed: int, workers: int, records: Records
) -> None:
    """Both loops to the end from the same start."""
    key, recipe = f"width {width}, {epochs} epochs, seed {seed}", Recipe(epochs=epochs, batch=BATCH)
    if records.has(ACCURACY, key):
        return
    ours, usual = (new_model(ARCH, data, width=width, seed=seed) for _ in range(2))
    begun = time.monotonic()
    train(ours, data, recipe, run=Run(seed=seed))
    between = time.monotonic()
    note(f"ostiary's loop took {between - begun:.1f} s")
    torch.manual_seed(seed)
    batches = loader(data, recipe, workers)
    usual_begun = time.monotonic()
    plain_train(usual, batches, recipe)
    usual_seconds = time.monotonic() - usual_begun
    predicted = [predictions(model, test) for model in (ours, usual)]
    gap, low, high = paired_difference(*(one == test.labels for one in predicted))
    figures = {
        "ostiary": hits(predicted[0], test.labels),
        "usual loop": hits(predicted[1], test.labels),
        "ostiary better by (points)": f"{gap:+.1f} [{low:+.1f}, {high:+.1f}]",
        "ostiary (s)": between - begun,
        "usual loop (s)": usual_seconds,
        "times the usual": usual_seconds / (between - begun),
    }
    n = f"{len(data)} to train, {len(test)} to test"
    records.add(ACCURACY, key, figures, seeds=[seed], n=n, seconds=time.monotonic() - begun)


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--train-images", type=int, default=10_000, help="images to train on (default 10000)")
    made.add_argument("--test-images", type=int, default=2000, help="images to test on (default 2000)")
    made.add_argument("--width", type=int, nargs="+", default=[16, 64], help="widths of the network (default 16 64)")
    made.add_argument("--epochs", type=int, default=10, help="epochs at the smallest width; 0: speed only (default 10)")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the training to the end (default 0)")
    made.add_argument("--repeats", type=int, default=5, help="timed blocks of each loop (default 5)")
    made.add_argument("--block", type=int, default=BLOCK, help="images in a block at width 16, fewer at larger widths")
    return parse(made)


def main() -> None:
    """Measure what is not recorded yet."""
    args = arguments()
    root = data_root("cifar10/train.parquet", "cifar10/test.parquet") / "cifar10"
    records = Records("train_speed", "Training speed", (__doc__ or "").split("\n\n")[2].replace("\n", " "), args)
    data, test = (
        _in_memory(trusted_subset(open_data(root / f"{part}.parquet"), n, seed=0))
        for part, n in (("train", args.train_images), ("test", args.test_images))
    )
    for width in sorted(args.width):
        block = max(2 * BATCH, int(args.block * min(1.0, (16 / width) ** 1.5)))
        part = _in_memory(trusted_subset(data, min(block, len(data)), seed=0))
        measure_speed(part, width, args.repeats, records)
        measure_layout(part, width, max(3, args.repeats - 2), records)
    width = min(args.width)
    usual = records.find(SPEED, f"width {width}, usual loop")
    workers = usual["figures"]["workers"] if usual else 0
    for seed in args.seeds if args.epochs else []:
        measure_accuracy(data, test, width, args.epochs, seed, workers, records)
    records.show()


def _in_memory(data: ImageSet) -> ArraySet:
    """The set decoded once, so that neither loop pays for reading files."""
    return ArraySet(load_uint8(data), data.labels, data.classes, data.ids, name=data.name)


if __name__ == "__main__":
    main()
