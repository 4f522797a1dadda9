"""Speed of Neural Cleanse on ResNet-18 with ten classes: the usual loop, ostiary's, and the floor.

    python -m benchmarks.scan_speed
    python -m benchmarks.scan_speed --separation MODEL --trusted SET [--target N]

One optimisation step of all ten classes on 32 images each is timed as: the usual loop (class after class, fp32, NCHW,
batch normalisation apart, weight gradients on and cleared at every step); the same with frozen weights; ostiary's
search with 1, 2, 5 or 10 classes in one pass, in fp32 and bf16; and the floor, which is the forward and backward pass
to the input of as many images through the fused bf16 network with no mask, no optimiser and no schedule. The weights
are random, which does not change the time. Blocks run in turn; medians are compared. `--separation` runs both loops
to the end on a model file and compares what they find, since a quick search that separates worse would be no gain.

Two cores: about 7 minutes. `--separation` takes some 20 minutes for ten classes and 500 steps.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.common import Records, hits, interleaved, note, parse, parser, spread
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.data import open_data, split
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.load import CIFAR10, load_model
from ostiary.models.zoo import build
from ostiary.perturb import stamp
from ostiary.scan.aims import ToClass
from ostiary.scan.forms import Patch, squash
from ostiary.scan.inversion import invert
from ostiary.scan.neural_cleanse import NeuralCleanse
from ostiary.scan.outlier import anomaly_index, size_ratio
from ostiary.scan.penalty import PenaltyControl, Schedule

CLASSES, BATCH = 10, 32
TOGETHER = (1, 2, 5, 10)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPEED, SEPARATION = "one step of all ten classes", "separation after equal steps"


def schedule(steps: int) -> Schedule:
    """The schedule of ostiary's preset for a number of steps."""
    preset = NeuralCleanse()
    per_round = preset.batches_per_round
    return Schedule(
        rounds=max(1, steps // per_round),
        batches_per_round=per_round,
        batch=BATCH,
        lr=preset.lr,
        initial_cost=preset.initial_cost,
        cost_factor=preset.cost_factor,
        patience=preset.patience,
        success=preset.success,
    )


class UsualSearch:
    """The usual loop for one class; the network's weights keep their gradients unless `frozen`."""

    def __init__(self, model: TorchClassifier, target: int, lr: float, rng: torch.Generator, *, frozen: bool) -> None:
        self.model, self.target, self.cost = model, target, 0.0
        model.module.eval().requires_grad_(not frozen)
        c, h, w = model.input_shape
        start = [torch.rand(1, h, w, generator=rng), torch.rand(c, h, w, generator=rng)]
        self.raw = [torch.atanh((one - 0.5) * (2 - 1e-3)).requires_grad_() for one in start]
        self.optimizer = torch.optim.Adam(self.raw, lr=lr, betas=(0.5, 0.9))
        self.frozen = frozen

    def trigger(self) -> tuple[Tensor, Tensor]:
        """Mask [1, h, w] and pattern [c, h, w] as they stand."""
        mask, pattern = (squash(one) for one in self.raw)
        return mask, pattern

    def step(self, x: Tensor) -> float:
        """One step; gives the share of the batch that goes to the target."""
        mask, pattern = self.trigger()
        logits = self.model.logits((1 - mask) * x + mask * pattern)
        loss = cross_entropy(logits, torch.full((len(x),), self.target)) + self.cost * mask.sum()
        if not self.frozen:
            self.model.module.zero_grad()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float((logits.detach().argmax(1) == self.target).float().mean())


def usual_scan(model: TorchClassifier, x: Tensor, steps: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neural Cleanse by the usual loop: masks [k, h, w], patterns [k, c, h, w], L1 sizes [k] (NaN: none found)."""
    plan, classes = schedule(steps), len(model.classes)
    c, h, w = model.input_shape
    masks, patterns = torch.zeros(classes, h, w), torch.zeros(classes, c, h, w)
    sizes, first = torch.full((classes,), float("nan")), torch.tensor([0])
    for target in range(classes):
        rng = torch.Generator().manual_seed(seed * 1009 + target)
        search, feed = UsualSearch(model, target, plan.lr, rng, frozen=False), _batches(x, rng)
        control = PenaltyControl(1, plan)
        for _ in range(plan.rounds):
            success = sum(search.step(next(feed)) for _ in range(plan.batches_per_round)) / plan.batches_per_round
            mask, pattern = (one.detach() for one in search.trigger())
            if control.update(first, torch.tensor([success]), mask.sum()[None]):
                masks[target], patterns[target], sizes[target] = mask[0], pattern, mask.sum()
            search.cost = float(control.cost)
            if control.stopped:
                break
        note(f"usual loop: class {target}: {float(sizes[target]):.1f} px")
    return masks, patterns, sizes


def _batches(x: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(x), generator=rng)
        for begin in range(0, max(1, len(x) - BATCH + 1), BATCH):
            yield x[order[begin : begin + BATCH]]


def usual_block(model: TorchClassifier, x: Tensor, steps: int, *, frozen: bool) -> float:
    """Seconds of a step of all classes, by the steps of one class: they are independent and alike."""
    search = UsualSearch(model, 0, 0.1, torch.Generator().manual_seed(0), frozen=frozen)
    begun = time.perf_counter()
    for _ in range(steps):
        search.step(x[:BATCH])
    return CLASSES * (time.perf_counter() - begun) / steps


def our_block(model: TorchClassifier, x: Tensor, y: Tensor, together: int, dtype: torch.dtype, steps: int) -> float:
    """Seconds of a step of all classes, by the steps of one group of `together` classes."""
    plan, targets = schedule(steps), ToClass(torch.arange(together))
    begun = time.perf_counter()
    invert(model, x, y, targets, plan, form=Patch(), dtype=dtype, together=together, run=Run(seed=0), label="")
    done = plan.rounds * plan.batches_per_round
    return CLASSES / together * (time.perf_counter() - begun) / done


def floor_block(model: TorchClassifier, images: Tensor, steps: int) -> float:
    """Seconds of a forward and backward pass to the input of the images of a step of all classes."""
    begun = time.perf_counter()
    for _ in range(steps):
        x = images.detach().requires_grad_()
        model.logits(x).float().sum().backward()
    return CLASSES * BATCH / len(images) * (time.perf_counter() - begun) / steps


def measure_speed(width: int, repeats: int, steps: int, records: Records) -> None:
    """All settings in turn at one width."""
    shape, begun = (3, 32, 32), time.monotonic()
    model = TorchClassifier(build("resnet18", CLASSES, width=width, seed=0), CLASSES, shape, *CIFAR10)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(BATCH * 8, *shape, generator=rng), torch.arange(BATCH * 8) % CLASSES
    names = ["usual loop", "usual loop, frozen"]
    blocks: dict[str, Callable[[], float]] = {
        name: partial(usual_block, model.clone(), x, steps, frozen=frozen)
        for name, frozen in zip(names, (False, True), strict=True)
    }
    for precision, dtype in PRECISIONS.items():
        fused = fused_inference(model)
        fused.module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for together in TOGETHER:
            images, bf16 = together * BATCH, dtype == torch.bfloat16
            # In bf16 few images are over too soon to be timed: as many images in a block for every setting.
            own = steps * CLASSES // together if bf16 else steps
            blocks[f"ostiary, {images} images, {precision}"] = partial(our_block, fused, x, y, together, dtype, own)
            if bf16:
                many = torch.rand(images, *shape, generator=rng).to(dtype).contiguous(memory_format=torch.channels_last)
                blocks[f"floor, {images} images, {precision}"] = partial(floor_block, fused, many, own)
    if all(records.has(SPEED, f"width {width}, {name}") for name in blocks):
        return
    found = interleaved(blocks, repeats)
    seconds = time.monotonic() - begun
    medians = {name: float(np.median(values)) for name, values in found.items()}
    for name, values in found.items():
        figures = {**spread(values, "seconds per step"), "times the usual": medians["usual loop"] / medians[name]}
        base = medians.get(name.replace("ostiary", "floor"))
        if name.startswith("ostiary") and base is not None:
            figures["over the floor"] = medians[name] / base
        records.add(SPEED, f"width {width}, {name}", figures, seeds=[0], n=f"{repeats} blocks", seconds=seconds)


def measure_separation(args: argparse.Namespace, records: Records) -> None:
    """Both loops to the end on one model with the same trusted images."""
    model = load_model(args.separation, args.arch, normalize=args.normalize)
    trusted = open_data(args.trusted)
    for seed in args.seeds:
        search, held_out = split(trusted, (0.5, 0.5), seed=seed)
        key = f"{args.separation.stem}, {args.steps} steps, seed {seed}"
        n = f"{len(search)} to search, {len(held_out)} held out"
        if not records.has(SEPARATION, f"{key}, usual loop"):
            begun = time.monotonic()
            masks, patterns, sizes = usual_scan(model.clone(), search.take(range(len(search))), args.steps, seed)
            seconds = time.monotonic() - begun
            target = _target(args.target, sizes.numpy())
            others = held_out.labels != target
            stamped = stamp(held_out.take(range(len(held_out)))[others], masks[target], patterns[target])
            flips = hits(model.predict(stamped).argmax(1), torch.full((int(others.sum()),), target))
            figures = _separation(sizes.double().numpy(), target, flips)
            records.add(SEPARATION, f"{key}, usual loop", figures, seeds=[seed], n=n, seconds=seconds)
        if not records.has(SEPARATION, f"{key}, ostiary"):
            begun = time.monotonic()
            evidence = NeuralCleanse(steps=args.steps).scan(model, trusted, run=Run(seed=seed))
            seconds = time.monotonic() - begun
            found = np.array([row.measures.get("mask_l1", float("nan")) for row in evidence.per_class])
            target = _target(args.target, found)
            figures = _separation(found, target, evidence.per_class[target].rates["flip_held_out"])
            records.add(SEPARATION, f"{key}, ostiary", figures, seeds=[seed], n=n, seconds=seconds)


def _target(given: int | None, sizes: np.ndarray) -> int:
    if given is not None or np.isnan(sizes).all():
        return given or 0
    return int(np.nanargmin(sizes))


def _separation(sizes: np.ndarray, target: int, flips: Rate) -> dict[str, object]:
    index, ratio = anomaly_index(sizes), size_ratio(sizes, sizes)
    return {
        "class": target,
        "mask (px)": float(sizes[target]),
        "median mask (px)": float(np.nanmedian(sizes)),
        "anomaly index": float(index[target]),
        "median over mask": float(ratio[target]),
        "largest index of another class": float(np.nanmax(np.delete(index, target))),
        "flips held-out images": flips,
    }


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--width", type=int, nargs="*", default=[16, 64], help="widths to time (default 16 64)")
    made.add_argument("--repeats", type=int, default=5, help="timed blocks of each setting (default 5)")
    made.add_argument("--block-steps", type=int, default=4, help="steps in a block (default 4)")
    made.add_argument("--separation", type=Path, metavar="MODEL", help="compare what both find on this model instead")
    made.add_argument("--trusted", help="trusted images for --separation")
    made.add_argument("--target", type=int, help="class to report (default: the one with the smallest mask)")
    made.add_argument("--arch", help="architecture of MODEL where the file does not say")
    made.add_argument("--normalize", help="normalisation of MODEL where the file does not say")
    made.add_argument("--steps", type=int, default=500, help="steps of each class for --separation (default 500)")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds for --separation (default 0)")
    args = parse(made)
    if args.separation is not None and args.trusted is None:
        made.error("--separation needs --trusted")
    return args


def main() -> None:
    """Measure what is not recorded yet."""
    args = arguments()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("scan_speed", "Speed of Neural Cleanse", about, args)
    if args.separation is not None:
        measure_separation(args, records)
    else:
        for width in args.width:
            measure_speed(width, args.repeats, args.block_steps, records)
    records.show()


if __name__ == "__main__":
    main()
