"""Searching a patch towards every class from a model's answers alone: natural evolution strategies."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ostiary.core.protocols import Predictor
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.perturb import stamp
from ostiary.scan.forms import squash
from ostiary.scan.inversion import Inverted
from ostiary.scan.penalty import PenaltyControl, Schedule

LEAST = 1e-6
"""A probability of 0, which a server's rounding makes, has no logarithm."""
EDGE = 3.0
"""Chances of a mask's cell stay within g(-3) = 0.2 % and g(3), so that none is settled for good."""
VALUES = 2**24
"""Input values that are held at once: 5,461 images of 3x32x32, 111 of 3x224x224."""
ASKED = 256
"""Images in one call of `predict`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How triggers are drawn: see `B3D` for what the numbers mean."""

    sigma: float
    density: float
    cells: int
    check: int


@dataclass(slots=True)
class Draws:
    """Triggers drawn for some classes, in pairs: draw i and draw i + s/2 are laid over one image.

    masks [r, s, 1, gh, gw] of 0 and 1, noise [r, s, c, gh, gw] of the pattern, on the grid of cells.
    """

    masks: Tensor
    noise: Tensor

    @classmethod
    def of(cls, chance: Tensor, channels: int, samples: int, rng: torch.Generator) -> "Draws":
        """Bernoulli masks with the given `chance` [r, 1, gh, gw], and Gaussian noise."""
        r, _, gh, gw = chance.shape
        masks = (torch.rand(r, samples, 1, gh, gw, generator=rng) < chance[:, None]).float()
        return cls(masks, torch.randn(r, samples, channels, gh, gw, generator=rng))

    def gradients(self, loss: Tensor, weight: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Estimates of the gradient of the mean loss to theta_m and theta_p, from losses [r, s].

        The slope of log Bernoulli(m; g(t)) is 2 (m - g(t)), that of the Gaussian noise / sigma. Each draw's baseline
        is the loss of its partner on the same image: that cancels what is due to the image, and leaves the estimate
        unbiased. `weight` [r, s/2] of the images sums up to 1.
        """
        half = loss.shape[1] // 2
        gap = ((loss[:, :half] - loss[:, half:]) * weight)[:, :, None, None, None]
        mask = (gap * (self.masks[:, :half] - self.masks[:, half:])).sum(1)
        pattern = (gap * (self.noise[:, :half] - self.noise[:, half:])).sum(1) / (2 * sigma)
        return mask, pattern


class Beliefs:
    """The distributions of all classes' triggers, and the optimiser that moves them."""

    def __init__(self, classes: int, shape: tuple[int, int, int], schedule: Schedule, sampling: Sampling) -> None:
        c, self.h, self.w = shape
        gh, gw = min(sampling.cells, self.h), min(sampling.cells, self.w)
        start = float(torch.atanh(torch.tensor(2 * sampling.density - 1)))
        self.mask = torch.full((classes, 1, gh, gw), start)
        self.pattern = torch.zeros(classes, c, gh, gw)
        self.pixels = self.h * self.w / (gh * gw)
        self._adam = torch.optim.Adam([self.mask, self.pattern], lr=schedule.lr, betas=(0.9, 0.99))

    def chance(self, rows: Tensor) -> Tensor:
        """The chance of each cell to be covered, [r, 1, gh, gw]."""
        return squash(self.mask[rows])

    def likeliest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [r, 1, h, w] of 0 and 1 and pattern [r, c, h, w]: the middle of each distribution."""
        return self.spread((self.mask[rows] > 0).float()), self.spread(squash(self.pattern[rows]))

    def spread(self, cells: Tensor) -> Tensor:
        """From cells to pixels, [n, c, h, w]."""
        return interpolate(cells, (self.h, self.w), mode="nearest")

    def move(self, rows: Tensor, mask: Tensor, pattern: Tensor, cost: Tensor) -> None:
        """One Adam step for the classes `rows`, with `cost` [r] for each pixel of the expected mask."""
        chance = self.chance(rows)
        penalty = cost.view(-1, 1, 1, 1) * self.pixels * 2 * chance * (1 - chance)
        self.mask.grad, self.pattern.grad = torch.zeros_like(self.mask), torch.zeros_like(self.pattern)
        self.mask.grad[rows], self.pattern.grad[rows] = mask + penalty, pattern
        self._adam.step()
        self.mask.clamp_(-EDGE, EDGE)


def search_by_queries(
    model: Predictor[Images],
    x: Images,
    y: Labels,
    classes: int,
    schedule: Schedule,
    sampling: Sampling,
    *,
    run: Run,
    label: str,
) -> Inverted:
    """Search the smallest patch towards each of `classes` on trusted images, asking `model` for answers alone.

    All classes see the same images; their searches are independent. Images of the target class count neither in the
    loss nor in the success. Gives what was finished when `run` is out of time; `finished` says which.
    """
    rng = run.generator("queries")
    beliefs = Beliefs(classes, (x.shape[1], x.shape[2], x.shape[3]), schedule, sampling)
    control = PenaltyControl(classes, schedule)
    best = [torch.zeros(classes, channels, *x.shape[2:]) for channels in (1, x.shape[1])]
    cut, passes = False, 0
    for round_ in range(schedule.rounds):
        for _ in range(schedule.batches_per_round):
            rows = (~control.stopped).nonzero().squeeze(1)
            if not len(rows) or run.out_of_time:
                cut = bool(len(rows))
                break
            seen = torch.randint(len(x), (schedule.batch // 2,), generator=rng)
            for some in rows.split(max(1, VALUES // (x[0].numel() * schedule.batch))):
                passes += len(some) * schedule.batch
                _step(model, x[seen], y[seen], some, beliefs, control.cost[some], schedule.batch, sampling, rng)
        if cut or not len(rows):
            break
        seen = torch.randperm(len(x), generator=rng)[: sampling.check]
        shown = beliefs.likeliest(rows)
        success = _success(model, x[seen], y[seen], rows, shown)
        passes += len(rows) * len(seen)
        better = control.update(rows, success, shown[0].sum((1, 2, 3)))
        for kept, now in zip(best, shown, strict=True):
            kept[rows[better]] = now[better]
        run.progress(round_ + 1, schedule.rounds, label)
    finished = control.stopped.clone() if cut else torch.ones(classes, dtype=torch.bool)
    # What was cut short is not measured either: that would cost queries after the deadline.
    size = torch.where(torch.isfinite(control.best) & finished, control.best, float("nan"))
    tried = beliefs.likeliest(torch.arange(classes))[0].sum((1, 2, 3))
    none = torch.zeros(classes, dtype=torch.bool)
    shrink = torch.ones(classes)
    return Inverted((best[0], best[1]), size, tried, finished, none, shrink, passes)


def _step(
    model: Predictor[Images],
    x: Images,
    y: Labels,
    rows: Tensor,
    beliefs: Beliefs,
    cost: Tensor,
    samples: int,
    sampling: Sampling,
    rng: torch.Generator,
) -> None:
    """Draw, ask and move the classes `rows`; each image of `x` [s/2, …] carries two draws of each class."""
    draws = Draws.of(beliefs.chance(rows), x.shape[1], samples, rng)
    patterns = squash(beliefs.pattern[rows][:, None] + sampling.sigma * draws.noise)
    masks, patterns = (beliefs.spread(cells.flatten(0, 1)) for cells in (draws.masks, patterns))
    images = stamp(x.repeat(2 * len(rows), 1, 1, 1), masks, patterns)
    own = _asked(model, images).view(len(rows), samples, -1).gather(2, rows[:, None, None].expand(-1, samples, 1))
    others = (y[None] != rows[:, None]).float()
    weight = others / others.sum(1, keepdim=True).clamp(min=1)
    loss = -own.squeeze(2).clamp(min=LEAST).log()
    beliefs.move(rows, *draws.gradients(loss, weight, sampling.sigma), cost)


def _success(model: Predictor[Images], x: Images, y: Labels, rows: Tensor, shown: tuple[Tensor, Tensor]) -> Tensor:
    """The share of the images of other classes that each trigger sends to its class, [r]."""
    found = []
    for target, mask, pattern in zip(rows.tolist(), *shown, strict=True):
        hits = _asked(model, stamp(x, mask, pattern)).argmax(1) == target
        others = y != target
        found.append((hits & others).sum() / others.sum().clamp(min=1))
    return torch.stack(found)


def _asked(model: Predictor[Images], images: Images) -> Tensor:
    """Probabilities of all images, [n, k], on the CPU."""
    return torch.cat([model.predict(part).float().cpu() for part in images.split(ASKED)])
