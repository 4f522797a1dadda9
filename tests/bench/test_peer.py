"""The schedule of Neural Cleanse as its authors ran it, which the presets are measured against."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

PATH = Path(__file__).parents[2] / "benchmarks" / "peers" / "neural_cleanse.py"


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peer", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peer"] = module
    spec.loader.exec_module(module)
    return module


def costs(peer: ModuleType, successes: list[float]) -> list[float]:
    penalty, found = peer.Penalty(), []
    for number, success in enumerate(successes):
        penalty.update(success, 100.0 - number)
        found.append(penalty.cost)
    return found


def test_the_penalty_begins_with_the_fifth_success_which_is_the_first_of_the_five_that_double_it(
    peer: ModuleType,
) -> None:
    assert costs(peer, [1.0] * 14) == [0.0] * 4 + [0.001] * 4 + [0.002] * 5 + [0.004]
    assert costs(peer, [1.0, 1.0, 1.0, 1.0, 0.98] * 3) == [0.0] * 15, "never five in a row"


def test_five_failures_lower_the_penalty_by_two_to_the_one_and_a_half(peer: ModuleType) -> None:
    assert costs(peer, [1.0] * 5 + [0.5] * 5)[-1] == pytest.approx(0.001 / 2**1.5)


def test_a_class_is_done_after_25_steps_without_a_smaller_mask_once_the_penalty_moved_both_ways(
    peer: ModuleType,
) -> None:
    penalty = peer.Penalty()
    assert not any(penalty.update(1.0, 50.0) for _ in range(60)), "it rose, and never fell"
    steps = [penalty.update(0.5, 50.0) for _ in range(5)]
    assert steps == [False] * 4 + [True]
    assert not penalty.update(1.0, 40.0), "a smaller mask"


def test_a_search_passes_31_batches_of_32_images_a_step(peer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "STEPS", 2)
    model = TorchClassifier(build("small-cnn", 3, width=2, seed=0), 3, (3, 8, 8))
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = peer.scan(model, x, 0)
    assert [one.passes for one in found] == [2 * 31 * 32] * 3
    assert all(0 < one.size < 64 for one in found)
