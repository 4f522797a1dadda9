"""Pruning channels: which there are, in which order they go, and where it ends."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from ostiary.core.errors import OutOfTime
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.repair import channels
from ostiary.repair.channels import levels, prunable, prune_while, silence


def model_of(*layers: nn.Module) -> TorchClassifier:
    return TorchClassifier(nn.Sequential(*layers).eval(), 3, (3, 8, 8))


def tail(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)


@pytest.fixture
def plain() -> TorchClassifier:
    torch.manual_seed(0)
    return model_of(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), *tail(4))


def noise(n: int = 50) -> ArraySet:
    rng = torch.Generator().manual_seed(0)
    return ArraySet(torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=rng), torch.arange(n) % 3)


def test_normalisations_are_pruned_and_convolutions_without_one(plain: TorchClassifier) -> None:
    assert prunable(plain) == {"1": 6, "3": 4}


def test_in_a_network_that_normalises_first_every_normalisation_is() -> None:
    model = TorchClassifier(build("preact-resnet18", 3, width=4), 3, (3, 32, 32))
    norms = [name for name, layer in model.module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert set(norms) <= set(prunable(model))


def test_weights_go_and_biases_only_when_asked(plain: TorchClassifier) -> None:
    norm: Any = plain.module[1]  # type: ignore[index]
    nn.init.ones_(norm.bias)
    silence(plain, [("1", 2)])
    assert norm.weight.tolist() == [1, 1, 0, 1, 1, 1] and norm.bias.tolist() == [1] * 6
    silence(plain, [("1", 2)], bias=True)
    assert norm.bias.tolist() == [1, 1, 0, 1, 1, 1]


def test_levels_rise_by_a_quarter_and_leave_a_channel() -> None:
    found = levels(4800)
    assert found[:8] == [1, 2, 3, 4, 5, 6, 7, 8] and found[-1] == 4799 and len(found) < 45
    assert all(one < two <= max(one + 1, 1.25 * one) for one, two in pairwise(found))
    assert levels(2) == [1]


def counted(monkeypatch: pytest.MonkeyPatch, right: list[int]) -> None:
    """Let the counts of right answers be these, one after the other."""
    left = iter(right)
    monkeypatch.setattr(channels, "hits", lambda *args: next(left))


def pruned(model: TorchClassifier) -> list[str]:
    """The channels whose weights are 0, as layer.channel."""
    layers = [(name, model.module.get_submodule(name).weight) for name in prunable(model)]
    return [f"{name}.{row}" for name, w in layers for row in range(len(w)) if not w[row].any()]  # type: ignore[index,arg-type]


MASKS = {"1": torch.tensor([0.9, 0.1, 1.0, 0.5, 0.3, 1.0]), "3": torch.tensor([0.2, 1.0, 0.4, 0.95])}


def test_the_lowest_masks_go_first_until_accuracy_breaks(
    plain: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.digest
    counted(monkeypatch, [40, 40, 39, 38])
    made, words = prune_while(plain, MASKS, noise(), 0.02, run=Run())
    assert pruned(made) == ["1.1", "3.0"] and plain.digest == before
    assert words == "2 of 10 channels, on 50 trusted images kept apart"


def test_a_level_beyond_the_first_break_is_not_taken(plain: TorchClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, [40, 10, 40, 40, 40, 40, 40])
    made, words = prune_while(plain, MASKS, noise(), 0.02, run=Run())
    assert made.digest == plain.digest and words.startswith("0 of 10")


def test_masks_of_one_are_never_pruned(plain: TorchClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, [40] * 20)
    made, words = prune_while(plain, MASKS, noise(), 0.02, run=Run())
    assert words.startswith("6 of 10") and not {"1.2", "1.5", "3.1", "3.3"} & set(pruned(made))


def test_a_deadline_ends_it(plain: TorchClassifier) -> None:
    with pytest.raises(OutOfTime, match="during pruning"):
        prune_while(plain, MASKS, noise(), 1.0, run=Run(deadline=0.0))
