"""The schedule of a search for small triggers, and the weight of its penalty on the size."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The penalty schedule: see `NeuralCleanse` for what the numbers mean.

    `drops` are pairs of a round and a number of classes: after that round the search goes on for as many of the
    smallest triggers, and for those of typical size that the others are judged by.
    """

    rounds: int
    batches_per_round: int
    batch: int
    lr: float
    initial_cost: float
    cost_factor: float
    patience: int
    success: float
    drops: tuple[tuple[int, int], ...] = ()


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
