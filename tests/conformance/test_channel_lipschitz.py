"""Channel Lipschitzness: Zheng et al. 2022: channels that carry a backdoor are steeper than their layer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ostiary.attacks.subnet import SubnetReplacement
from ostiary.core.decide import decide
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.lipschitz import channel_bounds
from ostiary.scan.channel_lipschitz import ChannelLipschitz, outlier


@pytest.fixture(scope="module")
def edited(lab: Any) -> Any:
    return SubnetReplacement().edit(lab.twin, lab.part, run=Run()).model


def test_the_steepest_channel_of_the_second_layer_is_one_of_those_replaced(lab: Any, edited: Any) -> None:
    bounds, before = (list(channel_bounds(model).values())[1] for model in (edited, lab.twin))
    assert bounds.argmax() >= len(bounds) - 2 > before.argmax()  # the last two channels are replaced


def test_without_reference_models_nothing_is_found(lab: Any, edited: Any) -> None:
    """The outlier alone is no verdict: the twin has one nearly as far out."""
    for model in (edited, lab.twin):
        evidence = ChannelLipschitz().scan(model, None, run=Run())
        assert evidence.measures["p_value"] < 0.05
        assert decide(evidence, ChannelLipschitz.card, tuple("0123456789")) == ()


def test_mutant_with_the_bounds_of_other_channels_does_not_see_it(edited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda grams: 1 / squares(grams).clip(min=1e-9) ** 2)
    bounds = list(channel_bounds(edited).values())[1]
    assert bounds.argmax() < len(bounds) - 2


@pytest.mark.parametrize(("inputs", "size", "groups"), [(3, 3, 1), (20, 3, 1), (12, 1, 1), (12, 3, 4), (9, 3, 9)])
def test_a_bound_is_the_spectral_norm_times_the_gain_of_the_normalisation(inputs: int, size: int, groups: int) -> None:
    """Against one singular value decomposition for each channel, of wide and of tall kernels."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(inputs, 36, size, groups=groups), nn.BatchNorm2d(36)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(36, 5)
    module = nn.Sequential(conv, norm, nn.ReLU(), *pooled).eval()
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.running_var.uniform_(0.5, 4)
    bounds = channel_bounds(TorchClassifier(module, None, (inputs, 4, 4)))["0"]
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs().detach()
    for channel in range(36):
        largest = np.linalg.svd(conv.weight[channel].detach().flatten(1).numpy(), compute_uv=False)[0]
        assert float(bounds[channel]) == pytest.approx(float(largest * gain[channel]), rel=1e-5)


def test_no_channel_can_do_more_to_its_input_than_its_bound() -> None:
    """Every patch of the input, as a matrix [inputs, places], is changed by at most bound x nuclear norm."""
    conv = nn.Conv2d(3, 9, 3)
    module = nn.Sequential(conv, nn.Flatten(), nn.Linear(9, 5)).eval()
    bounds = channel_bounds(TorchClassifier(module, None, (3, 3, 3)))["0"]
    with torch.no_grad():
        x = torch.randn(50, 3, 3, 3)
        moved = (conv(x) - conv(torch.zeros(1, 3, 3, 3))).abs().flatten(1)
        size = torch.linalg.matrix_norm(x.flatten(2), ord="nuc")
    assert bool((moved <= size[:, None] * bounds.float() * (1 + 1e-5)).all())


def test_the_p_value_is_that_of_grubbs() -> None:
    """Of 20 values the critical distance at 5 %, one-sided, is 2.557 (Grubbs 1969, table 1)."""
    values = torch.zeros(20).double()
    values[::2] = torch.linspace(-1, 1, 10).double()
    low, high = 1.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        found = outlier(torch.cat([values[1:], torch.tensor([middle]).double()]))
        assert found is not None
        low, high = (middle, high) if found[1] > 0.05 else (low, middle)
    found = outlier(torch.cat([values[1:], torch.tensor([high]).double()]))
    assert found is not None and found[0] == pytest.approx(2.557, abs=0.002)


def test_few_or_equal_channels_tell_nothing() -> None:
    assert outlier(torch.rand(7)) is None and outlier(torch.ones(9)) is None
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(NotMet, match="at least 8 channels"):
        ChannelLipschitz().scan(TorchClassifier(module, None, (3, 4, 4)), None, run=Run())
