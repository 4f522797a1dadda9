"""The side channel of a method."""

import time

import numpy as np
import pytest
import torch

from ostiary.core.records import Caution
from ostiary.core.run import Run


def draw(run: Run, stream: str) -> list[float]:
    return torch.rand(64, generator=run.generator(stream)).tolist()


def test_streams_depend_on_seed_and_name_alone() -> None:
    run = Run(seed=3)
    first = draw(run, "a")
    torch.rand(10)
    run.generator("b").manual_seed(1)
    assert draw(run, "a") == first == draw(Run(seed=3), "a") == draw(run.child(), "a")


def test_streams_are_independent() -> None:
    streams = [draw(Run(seed=seed), name) for seed in (0, 1, 2) for name in ("", "a", "b", "ab", "ba", "epoch-1")]
    values = np.corrcoef(np.array(streams))
    assert np.abs(values[~np.eye(len(streams), dtype=bool)]).max() < 0.6
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_generators_leave_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    draw(Run(seed=1), "a")
    assert torch.equal(torch.get_rng_state(), state)


def test_artifacts_are_plain_arrays() -> None:
    run = Run()
    weights = torch.ones(2, 3, requires_grad=True)
    assert run.artifact("a", weights.t()) == "a"
    run.artifact("half", torch.ones(2, dtype=torch.bfloat16))
    run.artifact("mask", torch.tensor([True, False]))
    run.artifact("array", np.arange(6).reshape(2, 3).T)
    assert run.artifacts["a"].dtype == np.float32 and run.artifacts["a"].shape == (3, 2)
    assert run.artifacts["half"].dtype == np.float32 and run.artifacts["mask"].dtype == bool
    assert all(array.flags.c_contiguous for array in run.artifacts.values())


def test_a_caution_is_noted_once_and_stays_with_its_method() -> None:
    run = Run()
    for text in ("few", "few", "fewer"):
        run.caution("OS901", text)
    assert run.cautions == [Caution(code="OS901", text="few"), Caution(code="OS901", text="fewer")]
    child = run.child()
    child.caution("OS902", "x")
    child.artifact("a", np.zeros(1))
    assert len(run.cautions) == 2 and run.artifacts == {}


def test_progress_and_deadline() -> None:
    told: list[tuple[int, int, str]] = []
    run = Run(on_progress=lambda *event: told.append(event))
    run.child().progress(1, 2, "x")
    assert told == [(1, 2, "x")]
    Run().progress(1, 2, "x")
    assert not Run().out_of_time
    assert Run(deadline=time.monotonic() - 1).child().out_of_time
    assert not Run(deadline=time.monotonic() + 100).out_of_time


@pytest.mark.parametrize("seed", [0, 2**31, 2**40])
def test_large_seeds_are_taken(seed: int) -> None:
    assert len(draw(Run(seed=seed), "a")) == 64
