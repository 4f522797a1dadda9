"""MM-BM: Wang et al. 2024: bounds on activations, as low as the task bears; no weight changes."""

from typing import Any

import pytest
import torch
from torch import nn

from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.models.carried import BOUND
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import mm_bm
from ostiary.repair.mm_bm import MmBm


def repair(model: TorchClassifier, lab: Any, **kw: Any) -> TorchClassifier:
    made: TorchClassifier = MmBm(**kw).repair(model, lab.trusted, None, run=Run()).model
    return made


def bounds(model: TorchClassifier) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.module.named_buffers() if name.endswith(BOUND)}


def test_it_weakens_the_backdoor_and_moves_no_weight(lab: Any) -> None:
    made = repair(lab.model, lab)
    assert lab.accuracy(made) >= lab.accuracy(lab.model) - 0.03 and lab.asr(made) <= 0.05
    weights = made.module.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in lab.model.module.state_dict().items())
    assert len(bounds(made)) == sum(isinstance(layer, nn.BatchNorm2d) for layer in made.module.modules())


def test_mutant_without_pressure_on_the_bounds_does_not(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds at the largest honest activations take much of the digits' backdoor already, but not enough of it."""
    monkeypatch.setattr(mm_bm, "_length", lambda found: torch.tensor(0.0))
    assert lab.asr(repair(lab.model, lab)) > 0.05


def test_a_model_without_a_backdoor_keeps_its_accuracy(lab: Any) -> None:
    assert lab.accuracy(repair(lab.twin, lab)) >= lab.accuracy(lab.twin) - 0.03


def test_bounds_start_from_the_largest_activations(lab: Any) -> None:
    names = [name for name, layer in lab.model.module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    pixels = torch.randint(0, 256, (40, *lab.model.input_shape), dtype=torch.uint8, generator=torch.Generator())
    found = mm_bm._largest(lab.model, pixels, at_once=16)
    given = lab.model.activations(pixels.float() / 255, names)
    assert list(found) == names
    for name in names:
        assert torch.allclose(found[name], given[name].amax((0, 2, 3)).clamp(min=0), atol=1e-5)


def test_bounds_that_cost_too_much_are_not_taken(lab: Any) -> None:
    """No accuracy is to be lost, and the steps are large: every look fails, and the bounds stay where they began."""
    made = MmBm(lr=5.0, tolerance=0.0, steps=20).repair(lab.model, lab.trusted, None, run=Run())
    assert made.selected["bounds"].startswith("100% of the largest activations")
    x = lab.trusted.take(range(len(lab.trusted)))
    assert torch.allclose(made.model.logits(x), lab.model.logits(x), atol=1e-4), (
        "no trusted image is answered otherwise"
    )


def test_a_second_repair_starts_from_the_first(lab: Any) -> None:
    """The largest activations of a bounded model are its bounds at the most."""
    once = repair(lab.model, lab, steps=40)
    twice = repair(once, lab, steps=20)
    assert all((bounds(twice)[name] <= most + 1e-6).all() for name, most in bounds(once).items())
    assert all(len(layer._forward_hooks) <= 1 for layer in twice.module.modules())


def test_too_few_images_are_refused(lab: Any) -> None:
    with pytest.raises(NotMet, match="four trusted images"):
        MmBm().repair(lab.model, lab.trusted.subset([0, 1, 2]), None, run=Run())


def test_a_model_without_normalisations_is_skipped(lab: Any) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(lab.trusted.take([0]).numel(), 10))
    with pytest.raises(NotMet, match="batch normalisations"):
        repair(TorchClassifier(module, 10, lab.model.input_shape), lab)
