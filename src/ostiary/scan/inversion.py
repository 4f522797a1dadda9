"""Searching the smallest trigger of a form that sends images where they should go, for many aims at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.aims import Aim
from ostiary.scan.forms import Form, Parts
from ostiary.scan.penalty import PenaltyControl, Schedule

TYPICAL = 2
"""Searches of typical size that go on to the end when others are dropped."""


@dataclass(slots=True)
class Inverted:
    """The best trigger of each search: the parts of its form, [k, ...], and its size [k] (NaN: none found).

    `tried` [k] is the size of the last trigger, whether it worked or not. `shrink` [k] is the factor by which the
    triggers of typical size shrank after a search was `dropped`: 1 for those that went on to the end.
    `passes` are the images that went through the network for it.
    """

    parts: Parts
    size: Tensor
    tried: Tensor
    finished: Tensor
    dropped: Tensor
    shrink: Tensor
    passes: int


def _endless(x: Images, y: Labels, batch: int, rng: torch.Generator) -> Iterator[tuple[Images, Labels]]:
    while True:
        order = torch.randperm(len(y), generator=rng)
        for begin in range(0, max(1, len(y) - batch + 1), batch):
            rows = order[begin : begin + batch]
            yield x[rows], y[rows]


def misfit(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of every answer towards the class that is wanted: logits [r, n, k], wanted [r, n]; gives [r, n]."""
    return logits.logsumexp(2) - logits.gather(2, wanted[..., None]).squeeze(2)


def invert(
    model: TorchClassifier,
    x: Images,
    y: Labels,
    aim: Aim,
    schedule: Schedule,
    *,
    form: Form,
    dtype: torch.dtype,
    together: int,
    run: Run,
    label: str,
) -> Inverted:
    """Search the smallest trigger of a form for each search of `aim` on trusted images `x` of classes `y`.

    `model` should be frozen and fused; `together` searches share a pass through it. All share every batch and the
    start; they are independent. Gives what was finished when `run` is out of time; `finished` says which.
    """
    search = Search(model, x, y, aim, schedule, form=form, dtype=dtype, together=together, run=run)
    cut = False
    for round_ in range(schedule.rounds):
        rows = search.active()
        cut = bool(len(rows)) and run.out_of_time
        if cut or not len(rows):
            break
        search.round(rows)
        for after, smallest in schedule.drops:
            if round_ + 1 == after:
                search.drop(smallest)
        run.progress(round_ + 1, schedule.rounds, label)
    return search.found(cut)


class Search:
    """Searches with many aims, side by side: the state of each is its own."""

    def __init__(
        self,
        model: TorchClassifier,
        x: Images,
        y: Labels,
        aim: Aim,
        schedule: Schedule,
        *,
        form: Form,
        dtype: torch.dtype,
        together: int,
        run: Run,
    ) -> None:
        self.model, self.aim, self.schedule, self.form = model, aim, schedule, form
        self.dtype, self.together, self.device = dtype, together, run.device
        k, (c, h, w), rng = len(aim), x.shape[1:], run.generator("inversion")
        start = form.start((c, h, w), rng)
        self.raw = [tuple(t.clone().to(run.device).requires_grad_() for t in start) for _ in range(k)]
        # A tensor without a gradient is left as it is: searches that do not take part in a step do not move.
        self.optimizer = torch.optim.Adam([t for own in self.raw for t in own], lr=schedule.lr, betas=(0.5, 0.9))
        self.control = PenaltyControl(k, schedule)
        self.best = tuple(torch.zeros(k, *t.shape[1:]) for t in start)
        self.feed = _endless(x, y, schedule.batch, rng)
        self.success = torch.zeros(k)
        self.dropped_at = torch.full((k,), -1)
        self.typical = torch.empty(0, dtype=torch.long)
        self.snapshots: list[Tensor] = []
        self.passes = 0

    def active(self) -> Tensor:
        """The searches that go on."""
        return (~self.control.stopped & (self.dropped_at < 0)).nonzero().squeeze(1)

    def drop(self, smallest: int) -> None:
        """End the search for all but the `smallest` triggers and the typical ones, those next to the median size.

        Where triggers grow, the smallest will be those that work best by now. Which are typical is settled once, among
        those that were not among the smallest: a target may be of median size early on, and shrinks as no other.
        """
        size, rows = self.sizes(), self.active()
        promise = -self.success if self.form.grows else size
        best = rows[promise[rows].argsort()[:smallest]]
        if not len(self.typical):
            others = rows[~torch.isin(rows, best)]
            self.typical = others[(size[others] - size.median()).abs().argsort()[:TYPICAL]]
        kept = torch.cat([best, self.typical])
        self.dropped_at[rows[~torch.isin(rows, kept)]] = len(self.snapshots)
        self.snapshots.append(size)

    def round(self, rows: Tensor) -> None:
        """One round of the penalty schedule for the searches `rows`."""
        batches = [next(self.feed) for _ in range(self.schedule.batches_per_round)]
        for group in rows.split(self.together):
            shown = tuple(t.detach().cpu() for t in self._parts(group))
            hits, counts = torch.stack([self._step(group, x, y) for x, y in batches]).sum(0)
            self.success[group] = (hits / counts.clamp(min=1)).amin(0)
            better = self.control.update(group, self.success[group], self.form.size(shown))
            for kept, now in zip(self.best, shown, strict=True):
                kept[group[better]] = now[better]

    def found(self, cut: bool) -> Inverted:
        """The best triggers so far; `cut` says that the search ended before its time."""
        best, done = self.control.best, self.control.stopped | (self.dropped_at >= 0)
        tried = self.sizes()
        size = torch.where(torch.isfinite(best), best, float("nan"))
        shrink = torch.ones(len(best))
        for number, then in enumerate(self.snapshots):
            now = torch.where(torch.isfinite(best), best, tried)[self.typical]
            shrink[self.dropped_at == number] = (now / then[self.typical]).mean()
        finished, dropped = done if cut else torch.ones_like(done), self.dropped_at >= 0
        return Inverted(self.best, size, tried, finished, dropped, shrink, self.passes)

    def sizes(self) -> Tensor:
        """The size of every trigger as it stands, [k]."""
        groups = torch.arange(len(self.raw)).split(self.together)
        with torch.no_grad():
            return torch.cat([self.form.size(self._parts(group)).cpu() for group in groups])

    def _parts(self, rows: Tensor) -> Parts:
        own = [self.raw[row] for row in rows.tolist()]
        return self.form.parts(tuple(torch.cat(tensors) for tensors in zip(*own, strict=True)))

    def _step(self, rows: Tensor, x: Images, y: Labels) -> Tensor:
        """One Adam step for the searches `rows`; gives hits and counts of each group of images, [2, g, r]."""
        device, wanted, counted = self.device, self.aim.wanted(rows, y), self.aim.counted(rows, y)
        parts = self._parts(rows)
        stamped = self.form.apply(x.to(device), parts).flatten(0, 1)
        stamped = stamped.to(self.dtype).contiguous(memory_format=torch.channels_last)
        self.passes += len(stamped)
        logits = self.model.logits(stamped).float().view(len(rows), len(x), -1)
        counts = counted.sum(2)
        weight = (counted / counts[..., None].clamp(min=1)).sum(0).to(device)
        penalty = self.control.cost[rows].to(device) * self.form.size(parts)
        loss = (misfit(logits, wanted.to(device)) * weight).sum() + penalty.sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        hit = logits.detach().argmax(2).cpu() == wanted
        return torch.stack([(hit & counted).sum(2), counts])
