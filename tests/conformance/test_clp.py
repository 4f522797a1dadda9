"""CLP: Zheng et al. 2022, sec. 4: what is far steeper than its layer is cut, without data, and the backdoor goes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ostiary.attacks.subnet import SubnetReplacement
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.protocols import Repaired
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import norms_after
from ostiary.models.lipschitz import channel_bounds
from ostiary.repair.clp import Clp


@pytest.fixture(scope="module")
def edited(lab: Any) -> PoisonedModel:
    """The twin with a detector of the trigger in place of the last 1, 2, 4 and 8 channels of its layers."""
    return SubnetReplacement().edit(lab.twin, lab.part, run=Run())


def repair(model: TorchClassifier) -> Repaired:
    return Clp().repair(model, None, None, run=Run())


def closes(lab: Any, before: PoisonedModel) -> bool:
    made = repair(before.model).model
    kept = lab.accuracy(made) >= lab.accuracy(before.model) - 0.02
    return kept and lab.asr(before.model, before.truth) >= 0.95 and lab.asr(made, before.truth) <= 0.05


def test_it_closes_a_backdoor_of_a_few_steep_channels(lab: Any, edited: PoisonedModel) -> None:
    assert closes(lab, edited)


def test_mutant_with_the_inverse_bounds_does_not(
    lab: Any, edited: PoisonedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda grams: 1 / squares(grams).clip(min=1e-9) ** 2)
    assert not closes(lab, edited)


def test_a_model_without_a_backdoor_keeps_its_accuracy(lab: Any) -> None:
    assert lab.accuracy(repair(lab.twin).model) >= lab.accuracy(lab.twin) - 0.02


def test_what_is_cut_lies_more_than_u_deviations_above_the_mean(edited: PoisonedModel) -> None:
    """And no other channel: weight and bias of its normalisation are 0, those of the others are as they were."""
    made, cut = repair(edited.model), 0
    before, after = norms_after(edited.model), norms_after(made.model)
    for name, bounds in channel_bounds(edited.model).items():
        far = bounds > bounds.mean() + 3 * bounds.std()
        cut += int(far.sum())
        for part in ("weight", "bias"):
            old, new = getattr(before[name], part), getattr(after[name], part)
            assert torch.equal(new, torch.where(far, 0.0, old))
    assert made.selected == {"pruned": f"{cut} of 240 channels"} and cut > 0


def test_a_convolution_without_a_normalisation_is_cut_itself() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 20, 3)
    with torch.no_grad():
        conv.weight[7] *= 50
    model = TorchClassifier(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(720, 5)), None, (3, 8, 8))
    made = repair(model).model.module[0]
    assert not made.weight[7].any() and not made.bias[7].any() and conv.weight[7].any()
    assert torch.equal(made.weight[:7], conv.weight[:7]) and torch.equal(made.bias[8:], conv.bias[8:])
