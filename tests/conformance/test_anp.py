"""ANP: Wu, Wang 2021, sec. 4: what a small change of weights turns against the task carries the backdoor."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ostiary.attacks.subnet import SubnetReplacement
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import anp
from ostiary.repair.anp import Anp
from ostiary.repair.channels import prunable
from ostiary.repair.masks import Gate, Masks, gated


@pytest.fixture(scope="module")
def edited(lab: Any) -> PoisonedModel:
    """The twin with a detector of the trigger in place of the last 1, 2, 4 and 8 channels of its layers."""
    return SubnetReplacement().edit(lab.twin, lab.part, run=Run())


def repair(model: TorchClassifier, lab: Any, **kw: Any) -> TorchClassifier:
    made: TorchClassifier = Anp(**kw).repair(model, lab.trusted, None, run=Run()).model
    return made


def closes(lab: Any, before: PoisonedModel, after: TorchClassifier) -> bool:
    kept = lab.accuracy(after) >= lab.accuracy(before.model) - 0.02
    return kept and lab.asr(before.model, before.truth) >= 0.95 and lab.asr(after, before.truth) <= 0.05


def test_the_channels_of_the_detector_go_first_and_the_backdoor_with_them(
    lab: Any, edited: PoisonedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Masks] = []
    prune = anp.prune_while
    monkeypatch.setattr(
        anp, "prune_while", lambda model, masks, *rest, **kw: kept.append(masks) or prune(model, masks, *rest, **kw)
    )
    made = repair(edited.model, lab)
    assert closes(lab, edited, made)
    widths = prunable(edited.model)
    ranked = sorted((float(mask), name, row) for name, values in kept[0].items() for row, mask in enumerate(values))
    # Its share of every layer is a sixteenth, the last channels.
    own = [row >= widths[name] - widths[name] // 16 for _, name, row in ranked[:10]]
    assert sum(own) >= 7


def test_mutant_whose_masks_are_of_other_channels_finds_nothing(
    lab: Any, edited: PoisonedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks learned without any change of weights tell the detector of these digits as well, and are no mutant."""
    learn = anp.learn_masks

    def turned(*args: Any, **kw: Any) -> Masks:
        return {name: mask.flip(0) for name, mask in learn(*args, **kw).items()}

    monkeypatch.setattr(anp, "learn_masks", turned)
    assert not closes(lab, edited, repair(edited.model, lab))


def test_a_model_without_a_backdoor_keeps_its_accuracy(lab: Any) -> None:
    """But for what a level that was chosen on 67 images costs."""
    assert lab.accuracy(repair(lab.twin, lab)) >= lab.accuracy(lab.twin) - 0.06


def tiny() -> tuple[TorchClassifier, Masks]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.bias, -1, 1)
    layers = nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return TorchClassifier(nn.Sequential(*layers), 3, (3, 8, 8)), {"1": torch.rand(6, requires_grad=True)}


X, Y = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def test_the_change_stays_in_its_box_and_raises_the_loss() -> None:
    model, masks = tiny()
    worst = Anp(eps=0.3)._worst(model, masks, X, Y, torch.Generator().manual_seed(0))["1"]
    assert isinstance(worst.shift, torch.Tensor)
    assert worst.scale.abs().max() <= 0.3 and (worst.shift - 1).abs().max() <= 0.3 + 1e-6
    assert worst.scale.unique().numel() > 1, "it moves by a step from a random start"
    with torch.no_grad():
        with gated(model, {"1": Gate(masks["1"])}):
            plain = cross_entropy(model.logits(X), Y)
        with gated(model, {"1": Gate(masks["1"] + worst.scale, worst.shift)}):
            assert cross_entropy(model.logits(X), Y) > plain


def test_masks_descend_by_both_losses_in_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    model, masks = tiny()
    worst = {"1": Gate(torch.full((6,), 0.2), torch.full((6,), 0.9))}
    monkeypatch.setattr(Anp, "_worst", lambda *args: worst)
    slopes = []
    for gate in (Gate(masks["1"]), Gate(masks["1"] + 0.2, torch.full((6,), 0.9))):
        with gated(model, {"1": gate}):
            slopes += torch.autograd.grad(cross_entropy(model.logits(X), Y), masks["1"])
    Anp(alpha=0.3)._backward(model, torch.Generator(), masks, X, Y)
    assert torch.allclose(masks["1"].grad, 0.3 * slopes[0] + 0.7 * slopes[1], atol=1e-7)


def test_masks_and_level_see_halves_of_the_trusted_images(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is there to choose the level on, and no image serves for both."""
    seen: dict[str, set[str]] = {}

    def learn(model: TorchClassifier, data: Any, *args: Any, **kw: Any) -> Masks:
        seen["masks"] = set(data.ids)
        return {}

    def prune(model: TorchClassifier, masks: Masks, choose: Any, *args: Any, **kw: Any) -> tuple[TorchClassifier, str]:
        seen["level"] = set(choose.ids)
        return model, ""

    monkeypatch.setattr(anp, "learn_masks", learn)
    monkeypatch.setattr(anp, "prune_while", prune)
    repair(lab.model, lab)
    assert not seen["masks"] & seen["level"] and seen["masks"] | seen["level"] == set(lab.trusted.ids)
