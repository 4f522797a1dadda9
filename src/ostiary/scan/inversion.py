"""Searching the smallest trigger of a form that sends images to a class, for many classes at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.forms import Form, Parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The penalty schedule: see `NeuralCleanse` for what the numbers mean."""

    rounds: int
    batches_per_round: int
    batch: int
    lr: float
    initial_cost: float
    cost_factor: float
    patience: int
    success: float


@dataclass(slots=True)
class Inverted:
    """The best trigger of each class: the parts of its form, [k, ...], and its size [k] (NaN: none found).

    `tried` [k] is the size of the last trigger, whether it worked or not.
    """

    parts: Parts
    size: Tensor
    tried: Tensor
    finished: Tensor


class PenaltyControl:
    """The weight of the penalty on the size, class by class.

    It starts at zero, is set to the initial cost after `patience` successful rounds, then rises by
    the factor f after `patience` successes in a row and falls by f^1.5 after `patience` failures.
    A class stops when its best trigger has not shrunk by 1 % for twice the patience and the cost has
    moved both ways.
    """

    def __init__(self, classes: int, schedule: Schedule) -> None:
        self.s = schedule
        self.cost = torch.zeros(classes)
        self.best = torch.full((classes,), float("inf"))
        self.stopped = torch.zeros(classes, dtype=torch.bool)
        self._up, self._down, self._stale = (torch.zeros(classes, dtype=torch.long) for _ in range(3))
        self._rose, self._fell = (torch.zeros(classes, dtype=torch.bool) for _ in range(2))
        self._mark = torch.full((classes,), float("inf"))

    def update(self, rows: Tensor, success: Tensor, size: Tensor) -> Tensor:
        """Take one round's success and size of the classes `rows`; gives True where the best improved."""
        good = success >= self.s.success
        better = good & (size < self.best[rows])
        self.best[rows] = torch.where(better, size, self.best[rows])
        self._up[rows] = torch.where(good, self._up[rows] + 1, 0)
        self._down[rows] = torch.where(good, 0, self._down[rows] + 1)
        self._move(rows)
        self._stop(rows)
        return better

    def _move(self, rows: Tensor) -> None:
        cost, off = self.cost[rows], self.cost[rows] == 0
        rise = self._up[rows] >= self.s.patience
        fall = (self._down[rows] >= self.s.patience) & ~off
        raised = torch.where(off, torch.full_like(cost, self.s.initial_cost), cost * self.s.cost_factor)
        self.cost[rows] = torch.where(rise, raised, torch.where(fall, cost / self.s.cost_factor**1.5, cost))
        self._rose[rows] |= rise & ~off
        self._fell[rows] |= fall
        self._up[rows] = torch.where(rise, 0, self._up[rows])
        self._down[rows] = torch.where(fall, 0, self._down[rows])

    def _stop(self, rows: Tensor) -> None:
        best, mark = self.best[rows], self._mark[rows]
        stale = torch.isfinite(best) & (best >= 0.99 * mark)
        self._stale[rows] = torch.where(stale, self._stale[rows] + 1, 0)
        self._mark[rows] = torch.minimum(best, mark)
        self.stopped[rows] |= (self._stale[rows] >= 2 * self.s.patience) & self._rose[rows] & self._fell[rows]


def _endless(x: Images, y: Labels, batch: int, rng: torch.Generator) -> Iterator[tuple[Images, Labels]]:
    while True:
        order = torch.randperm(len(y), generator=rng)
        for begin in range(0, max(1, len(y) - batch + 1), batch):
            rows = order[begin : begin + batch]
            yield x[rows], y[rows]


def invert(
    model: TorchClassifier,
    x: Images,
    y: Labels,
    targets: Tensor,
    schedule: Schedule,
    *,
    form: Form,
    dtype: torch.dtype,
    run: Run,
    label: str,
    part: tuple[int, int] = (0, 1),
) -> Inverted:
    """Search the smallest trigger of a form towards each of `targets` on trusted images.

    `model` should be frozen and fused. All targets share every batch and the start; their searches
    are independent. Images of the target class itself count neither in the loss nor in the success.
    Gives what was finished when `run` is out of time; `finished` says which. `part` says which of how
    many groups of targets this is, for the progress.
    """
    k, (c, h, w) = len(targets), x.shape[1:]
    device, rng = run.device, run.generator("inversion")
    start = form.start((c, h, w), rng)
    raw = [t.repeat(k, *[1] * (t.dim() - 1)).to(device).requires_grad_() for t in start]
    optimizer = torch.optim.Adam(raw, lr=schedule.lr, betas=(0.5, 0.9))
    control = PenaltyControl(k, schedule)
    best = [torch.zeros(k, *t.shape[1:]) for t in start]
    feed = _endless(x, y, schedule.batch, rng)
    cut = False
    for round_ in range(schedule.rounds):
        rows = (~control.stopped).nonzero().squeeze(1)
        if not len(rows) or run.out_of_time:
            cut = bool(len(rows))
            break
        shown = tuple(t.cpu() for t in form.parts(tuple(t.detach()[rows] for t in raw)))
        success = torch.zeros(len(rows))
        for _ in range(schedule.batches_per_round):
            bx, by = next(feed)
            success += _step(model, bx, by, targets[rows], rows, raw, optimizer, control.cost, form, dtype)
        better = control.update(rows, success / schedule.batches_per_round, form.size(shown))
        for kept, now in zip(best, shown, strict=True):
            kept[rows[better]] = now[better]
        run.progress(part[0] * schedule.rounds + round_ + 1, part[1] * schedule.rounds, label)
    size = torch.where(torch.isfinite(control.best), control.best, float("nan"))
    finished = control.stopped.clone() if cut else torch.ones(k, dtype=torch.bool)
    tried = form.size(form.parts(tuple(t.detach() for t in raw))).cpu()
    return Inverted(tuple(best), size, tried, finished)


def _step(
    model: TorchClassifier,
    x: Images,
    y: Labels,
    targets: Tensor,
    rows: Tensor,
    raw: list[Tensor],
    optimizer: torch.optim.Optimizer,
    cost: Tensor,
    form: Form,
    dtype: torch.dtype,
) -> Tensor:
    """One Adam step for the classes `rows`; gives each one's success on this batch."""
    device, n = raw[0].device, len(x)
    parts = form.parts(tuple(t[rows] for t in raw))
    stamped = form.apply(x.to(device), parts).flatten(0, 1)
    stamped = stamped.to(dtype).contiguous(memory_format=torch.channels_last)
    logits = model.logits(stamped).float()
    want = targets.to(device).repeat_interleave(n)
    others = (y[None] != targets[:, None]).to(device)
    weight = others.float() / others.sum(1, keepdim=True).clamp(min=1)
    fit = cross_entropy(logits, want, reduction="none").view(len(rows), n)
    loss = (fit * weight).sum() + (cost[rows].to(device) * form.size(parts)).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    hit = (logits.detach().argmax(1) == want).view(len(rows), n)
    return ((hit & others).float() * weight).sum(1).cpu()
