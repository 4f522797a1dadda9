"""Classes whose triggers do not come out small are dropped early; what they would have reached is told by others."""

import dataclasses

import pytest
import torch

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build
from ostiary.scan.aims import ToClass
from ostiary.scan.forms import Patch
from ostiary.scan.inversion import TYPICAL, Inverted, Search, invert
from ostiary.scan.penalty import Schedule

CLASSES = 12
SCHEDULE = Schedule(
    rounds=8, batches_per_round=2, batch=4, lr=0.1, initial_cost=1e-2, cost_factor=2.0, patience=1, success=0.0
)
DROPS = ((2, 4), (4, 2))


def run(drops: tuple[tuple[int, int], ...], calls: list[int] | None = None) -> Inverted:
    model = fused_inference(TorchClassifier(build("small-cnn", CLASSES, width=2), CLASSES, (3, 8, 8)))
    if calls is not None:
        model.module.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    x = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return invert(
        model,
        x,
        torch.arange(24) % CLASSES,
        ToClass(torch.arange(CLASSES)),
        dataclasses.replace(SCHEDULE, drops=drops),
        form=Patch(),
        dtype=torch.float32,
        together=5,
        run=Run(),
        label="test",
    )


def test_the_smallest_and_the_typical_are_searched_to_the_end_and_cost_most_of_the_passes() -> None:
    calls: list[int] = []
    found = run(DROPS, calls)
    left = int((~found.dropped).sum())
    assert 2 <= left <= 2 + TYPICAL
    images = SCHEDULE.batches_per_round * SCHEDULE.batch
    least, most = (images * (2 * CLASSES + 2 * (4 + more) + 4 * (2 + more)) for more in (0, TYPICAL))
    assert least <= sum(calls) <= most
    assert sum(calls) < images * SCHEDULE.rounds * CLASSES * 2 / 3
    assert found.finished.all()


def test_those_searched_to_the_end_find_what_they_find_without_any_drop() -> None:
    dropped, whole = run(DROPS), run(())
    kept = ~dropped.dropped
    assert torch.equal(dropped.size[kept], whole.size[kept])
    for one, other in zip(dropped.parts, whole.parts, strict=True):
        assert torch.equal(one[kept], other[kept])
    assert not whole.dropped.any() and torch.equal(whole.shrink, torch.ones(CLASSES))


def test_the_dropped_stay_where_they_were_and_are_expected_to_shrink_as_the_typical_did() -> None:
    found, short = run(DROPS), run(((2, 4),))
    first = found.dropped & short.dropped
    assert first.any() and torch.equal(found.tried[first], short.tried[first]), "a dropped class moved on"
    assert (found.shrink[first] < 1).all() and len(found.shrink[first].unique()) == 1
    assert torch.equal(found.shrink[~found.dropped], torch.ones(int((~found.dropped).sum())))
    whole = run(())
    error = (found.tried * found.shrink)[first] / whole.size[first]
    assert 0.8 < float(error.median()) < 1.25


def test_few_classes_are_all_searched_to_the_end() -> None:
    assert not run(((2, CLASSES),)).dropped.any()


def test_out_of_time_after_a_drop_only_the_dropped_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Search.drop

    def drop(search: Search, smallest: int) -> None:
        done(search, smallest)
        monkeypatch.setattr(Run, "out_of_time", property(lambda self: True))

    monkeypatch.setattr(Search, "drop", drop)
    found = run(DROPS)
    assert found.dropped.any() and torch.equal(found.finished, found.dropped)
