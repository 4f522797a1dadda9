"""The penalty schedule of Neural Cleanse, step by step."""

import math

import pytest
import torch

from ostiary.scan.penalty import PenaltyControl, Schedule

SCHEDULE = Schedule(
    rounds=1, batches_per_round=1, batch=1, lr=0.1, initial_cost=1e-3, cost_factor=2.0, patience=3, success=0.9
)
ONE = torch.tensor([0])


def feed(control: PenaltyControl, success: float, times: int, size: float = 10.0, rows: torch.Tensor = ONE) -> None:
    for _ in range(times):
        control.update(rows, torch.full((len(rows),), success), torch.full((len(rows),), size))


def test_the_penalty_starts_at_zero_and_is_set_after_patience_successes() -> None:
    control = PenaltyControl(1, SCHEDULE)
    feed(control, 1.0, 2)
    assert float(control.cost) == 0
    feed(control, 1.0, 1)
    assert float(control.cost) == pytest.approx(1e-3)


def test_a_failure_breaks_the_series() -> None:
    control = PenaltyControl(1, SCHEDULE)
    for success in (1.0, 1.0, 0.0, 1.0, 1.0):
        feed(control, success, 1)
    assert float(control.cost) == 0


def test_the_penalty_doubles_after_patience_successes_and_keeps_rising() -> None:
    """Where the guard on a cost of zero is lost, it is reset to the initial cost each time and never rises."""
    control = PenaltyControl(1, SCHEDULE)
    seen = []
    for _ in range(6):
        feed(control, 1.0, 3)
        seen.append(float(control.cost))
    assert seen == pytest.approx([1e-3 * 2**power for power in range(6)])


def test_the_penalty_falls_by_the_factor_to_three_halves() -> None:
    control = PenaltyControl(1, SCHEDULE)
    feed(control, 1.0, 9)
    feed(control, 0.0, 2)
    assert float(control.cost) == pytest.approx(4e-3)
    feed(control, 0.0, 1)
    assert float(control.cost) == pytest.approx(4e-3 / 2**1.5)


def test_failures_at_zero_leave_it_at_zero() -> None:
    control = PenaltyControl(1, SCHEDULE)
    feed(control, 0.0, 20)
    assert float(control.cost) == 0 and math.isinf(float(control.best))


def test_success_at_the_limit_counts() -> None:
    control = PenaltyControl(1, SCHEDULE)
    assert control.update(ONE, torch.tensor([0.9]), torch.tensor([5.0])).tolist() == [True]
    assert control.update(ONE, torch.tensor([0.89]), torch.tensor([4.0])).tolist() == [False]


def test_the_best_is_smaller_and_successful_or_stays() -> None:
    control = PenaltyControl(1, SCHEDULE)
    rounds = [(1.0, 10.0, True), (1.0, 12.0, False), (0.5, 3.0, False), (1.0, 10.0, False), (1.0, 8.0, True)]
    for success, size, improved in rounds:
        got = control.update(ONE, torch.tensor([success]), torch.tensor([size]))
        assert bool(got) is improved
    assert float(control.best) == 8.0


def test_costs_do_not_leak_from_class_to_class() -> None:
    """Several classes at once go each through what it would go through alone, whatever stands beside it."""
    rng = torch.Generator().manual_seed(0)
    success = (torch.rand(60, 4, generator=rng) < torch.tensor([0.95, 0.7, 0.3, 0.9])).float()
    size = 20 * torch.rand(60, 4, generator=rng)
    together = PenaltyControl(4, SCHEDULE)
    for round_ in range(60):
        together.update(torch.arange(4), success[round_], size[round_])
    for label in range(4):
        alone = PenaltyControl(1, SCHEDULE)
        for round_ in range(60):
            alone.update(ONE, success[round_, label : label + 1], size[round_, label : label + 1])
        assert float(alone.cost) == float(together.cost[label])
        assert float(alone.best) == float(together.best[label])
        assert bool(alone.stopped) == bool(together.stopped[label])
    assert len(set(together.cost.tolist())) > 1, "the classes must differ, or this shows nothing"


def test_rows_that_are_left_out_do_not_move() -> None:
    control = PenaltyControl(3, SCHEDULE)
    feed(control, 1.0, 6, rows=torch.tensor([2]))
    assert control.cost.tolist() == pytest.approx([0, 0, 2e-3])
    assert torch.isinf(control.best[:2]).all()


def stale(control: PenaltyControl) -> None:
    feed(control, 1.0, 2 * SCHEDULE.patience + 1)


def test_it_stops_only_when_the_best_is_stale_and_the_cost_moved_both_ways() -> None:
    rising = PenaltyControl(1, SCHEDULE)
    feed(rising, 1.0, 40)
    assert not bool(rising.stopped), "the cost only rose"
    falling = PenaltyControl(1, SCHEDULE)
    feed(falling, 1.0, 3)
    feed(falling, 0.0, 40)
    assert not bool(falling.stopped), "the cost was set and fell, it never rose"
    both = PenaltyControl(1, SCHEDULE)
    feed(both, 1.0, 6)
    feed(both, 0.0, 3)
    stale(both)
    assert bool(both.stopped)


def test_a_best_that_still_shrinks_keeps_the_search_going() -> None:
    control = PenaltyControl(1, SCHEDULE)
    size = 100.0
    for round_ in range(60):
        size *= 0.95
        control.update(ONE, torch.tensor([0.0 if round_ % 8 > 4 else 1.0]), torch.tensor([size]))
    assert not bool(control.stopped)


def test_nothing_found_never_stops() -> None:
    control = PenaltyControl(1, SCHEDULE)
    feed(control, 0.0, 100)
    assert not bool(control.stopped)
