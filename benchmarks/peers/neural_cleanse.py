"""Neural Cleanse as its authors ran it: class after class, fp32, their data, learning rate, schedule and verdict.

Source: Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, and the constants and the stopping rule of the authors'
code at https://github.com/bolunwang/backdoor. That code needs Keras 2 and Python 2 and cannot be installed here, so
the procedure was written anew for torch; it needs nothing but torch. A step of the schedule is a pass over 1,000 images
in 31 batches of 32; where fewer trusted images exist, the batches go round them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.models.classifier import TorchClassifier

STEPS, IMAGES, BATCH, LR = 1000, 1000, 32, 0.1
INITIAL_COST, UP, DOWN = 1e-3, 2.0, 2.0**1.5
SUCCESS, PATIENCE = 0.99, 5
STOP_AFTER = 5 * PATIENCE
"""Steps in a row without a smaller mask after which a class is done."""


@dataclass(slots=True)
class Penalty:
    """The authors' weight of the mask's size, and their rule when to stop."""

    cost: float = 0.0
    waiting: int = 0
    successes: int = 0
    failures: int = 0
    rose: bool = False
    fell: bool = False
    least: float = float("inf")
    stale: int = 0

    def update(self, success: float, best: float) -> bool:
        """Take one step's success and the smallest mask so far; True when the search is over."""
        self._settle(success)
        self.successes = self.successes + 1 if success >= SUCCESS else 0
        self.failures = 0 if success >= SUCCESS else self.failures + 1
        if self.successes >= PATIENCE:
            self.successes, self.cost, self.rose = 0, self.cost * UP, True
        elif self.failures >= PATIENCE:
            self.failures, self.cost, self.fell = 0, self.cost / DOWN, True
        if best < float("inf"):
            self.stale = self.stale + 1 if best >= self.least else 0
        self.least = min(best, self.least)
        return self.rose and self.fell and self.stale >= STOP_AFTER

    def _settle(self, success: float) -> None:
        """The penalty begins after `PATIENCE` successful steps without it."""
        if self.cost > 0:
            return
        self.waiting = self.waiting + 1 if success >= SUCCESS else 0
        if self.waiting >= PATIENCE:
            self.cost, self.rose, self.fell = INITIAL_COST, False, False
            self.successes = self.failures = 0


@dataclass(slots=True)
class Searched:
    """The smallest mask towards a class in pixels (the last one where none worked), and the images that were passed."""

    size: float
    passes: int


def search(model: TorchClassifier, x: Tensor, target: int, rng: torch.Generator) -> Searched:
    """The smallest trigger towards one class that sends 99 % of `x` there."""
    c, h, w = model.input_shape
    start = (torch.rand(1, h, w, generator=rng), torch.rand(c, h, w, generator=rng))
    raw = [torch.atanh((one - 0.5) * (2 - 1e-3)).requires_grad_() for one in start]
    optimizer = torch.optim.Adam(raw, lr=LR, betas=(0.5, 0.9))
    penalty, feed, best, passes = Penalty(), _batches(x, rng), float("inf"), 0
    labels, count, sizes = torch.full((BATCH,), target), IMAGES // BATCH, 0.0
    for _ in range(STEPS):
        hits, sizes = 0.0, 0.0
        for _ in range(count):
            mask, pattern = (torch.tanh(one) / 2 + 0.5 for one in raw)
            images = next(feed)
            logits = model.logits((1 - mask) * images + mask * pattern)
            size = mask.sum()
            loss = cross_entropy(logits, labels) + penalty.cost * size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            passes += BATCH
            hits += float((logits.detach().argmax(1) == target).float().mean()) / count
            sizes += float(size.detach()) / count
        if hits >= SUCCESS and sizes < best:
            best = sizes
        if penalty.update(hits, best):
            break
    return Searched(sizes if best == float("inf") else best, passes)


def _batches(x: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < BATCH:
            left = torch.cat([left, torch.randperm(len(x), generator=rng)])
        yield x[left[:BATCH]]
        left = left[BATCH:]


def scan(model: TorchClassifier, x: Tensor, seed: int) -> list[Searched]:
    """All classes, one after the other; the network's weights are left as a user would load them, but frozen."""
    model.module.eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)
    return [search(model, x, target, rng) for target in range(len(model.classes))]
