"""Masks on channels: what a gate gives, and how masks are learned."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.catalog import make
from ostiary.core.errors import ModelError, NotMet, OutOfTime
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.masks import Gate, Masks, gated, learn_masks


@pytest.fixture
def model() -> TorchClassifier:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    tail = nn.Conv2d(6, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return TorchClassifier(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), norm, nn.ReLU(), *tail), 3, (3, 8, 8))


def data(n: int = 40) -> ArraySet:
    rng = torch.Generator().manual_seed(0)
    return ArraySet(torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=rng), torch.arange(n) % 3)


@pytest.mark.parametrize(("name", "width"), [("1", 6), ("3", 4), ("0", 6)])
def test_a_gate_scales_weights_and_biases_as_if_they_were_other_weights(
    model: TorchClassifier, name: str, width: int
) -> None:
    x, scale, shift = torch.rand(5, 3, 8, 8), torch.rand(width), torch.rand(width) + 0.5
    changed = TorchClassifier(copy.deepcopy(model.module), 3, (3, 8, 8))
    layer: Any = changed.module.get_submodule(name)
    with torch.no_grad():
        layer.weight *= scale.view(-1, *[1] * (layer.weight.dim() - 1))
        if layer.bias is not None:
            layer.bias *= shift
        with gated(model, {name: Gate(scale, shift)}):
            found = model.logits(x)
        assert torch.allclose(found, changed.logits(x), atol=1e-5)
        assert not torch.allclose(model.logits(x), found), "and the gate is open again afterwards"


def learned(model: TorchClassifier, slope: dict[str, float], steps: int = 4, **kw: Any) -> Masks:
    def backward(masks: Masks, x: Tensor, y: Tensor) -> None:
        for name, mask in masks.items():
            mask.grad = torch.full_like(mask, slope[name])

    return learn_masks(model, kw.pop("data", data()), backward, steps=steps, lr=0.1, batch=16, run=Run(**kw), label="x")


def test_masks_are_their_mean_over_the_steps_and_stay_within_bounds(model: TorchClassifier) -> None:
    """Momentum 0.9: at slope 2 a mask falls by 0.2, 0.38, 0.542, ... and is 0 from the third step on."""
    masks = learned(model, {"1": 2.0, "3": -1.0})
    assert torch.allclose(masks["1"], torch.full((6,), (0.8 + 0.42) / 4))
    assert torch.equal(masks["3"], torch.ones(4)), "a mask that is not moved gives 1 exactly"


def test_weights_are_not_touched(model: TorchClassifier) -> None:
    before = {name: weight.clone() for name, weight in model.module.named_parameters()}

    def backward(masks: Masks, x: Tensor, y: Tensor) -> None:
        with gated(model, {name: Gate(mask) for name, mask in masks.items()}):
            cross_entropy(model.logits(x), y).backward()

    made = [learn_masks(model, data(), backward, steps=3, lr=0.5, batch=16, run=Run(), label="x") for _ in range(2)]
    assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())
    assert all(weight.grad is None and weight.requires_grad for weight in model.module.parameters())
    assert torch.equal(made[0]["1"], made[1]["1"]) and made[0]["1"].min() < 1 and not model.module.training


def test_too_few_images_and_no_channels_are_told(model: TorchClassifier) -> None:
    with pytest.raises(NotMet, match="needs more trusted images"):
        learned(model, {"1": 1.0, "3": 1.0}, data=data(1))
    linear = TorchClassifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 3, (3, 8, 8))
    with pytest.raises(NotMet, match="needs a convolution"):
        learned(linear, {})


def test_a_deadline_ends_it(model: TorchClassifier) -> None:
    with pytest.raises(OutOfTime, match="at 1 of 4"):
        learned(model, {"1": 1.0, "3": 1.0}, deadline=0.0)


def test_masks_that_are_no_numbers_are_an_error(model: TorchClassifier) -> None:
    with pytest.raises(ModelError, match="the masks of x are not finite"):
        learned(model, {"1": math.nan, "3": 0.0})


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("rnp", {"unlearn_lr": 1e30}, "unlearning is not finite in step 2"),
        ("mm-bm", {"c": 1e39}, "the loss is not finite in step 1"),
    ],
)
def test_a_repair_that_diverges_is_an_error_and_no_unchanged_copy(
    model: TorchClassifier, method: str, params: dict[str, float], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        make("repair", method, params).repair(model, data(80), None, run=Run())
    assert caught.value.hint is not None
