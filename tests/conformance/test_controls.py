"""The controls among the hardened trainings do what their papers say; what they do to a backdoor is told, not bounded.

The mutant of those that change what a batch is, is the plain model.
"""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run
from ostiary.harden.adversarial import AdversarialTraining
from ostiary.harden.cutmix import CutMix
from ostiary.harden.dp_sgd import DPSGD
from ostiary.harden.mixup import Mixup
from ostiary.models.classifier import TorchClassifier
from ostiary.perturb.pgd import PGD
from ostiary.training import Recipe, predicted
from ostiary.training.flow import new_model

EPS = 16 / 255
N = 200


def hardened(lab: Any, method: Any, epochs: int, **recipe: float) -> TorchClassifier:
    """Trained on the poisoned digits."""
    fresh = new_model("small-cnn", lab.poisoned.data, width=None, seed=0)
    short = dataclasses.replace(RECIPE, epochs=epochs, precision="fp32", **recipe)
    model = method.harden(lab.poisoned.data, fresh, None, short, run=Run()).model
    assert 0 <= lab.asr(model) <= 1, "told, and not bounded"
    return model


def test_adversarial_training_withstands_pgd(lab: Any) -> None:
    x, y = lab.test.take(range(N)), lab.test.labels[:N]

    def robust(of: TorchClassifier) -> float:
        moved = PGD(eps=EPS, step=EPS / 4).perturb(of, x, y, run=Run())
        return float((predicted(of, moved) == y).float().mean())

    model = hardened(lab, AdversarialTraining(eps=EPS, fast=True), 5)
    assert lab.accuracy(model) >= 0.95 and robust(model) >= 0.6 and robust(lab.model) <= 0.05


@pytest.mark.parametrize(("method", "passes"), [(AdversarialTraining(steps=3), 4), (AdversarialTraining(fast=True), 2)])
def test_each_step_of_pgd_is_a_pass(lab: Any, method: AdversarialTraining, passes: int) -> None:
    calls, clone = [], TorchClassifier.clone

    def counted(self: TorchClassifier) -> TorchClassifier:
        copy = clone(self)
        copy.module.register_forward_hook(lambda *_: calls.append(1))
        return copy

    fresh = new_model("small-cnn", lab.part, width=4, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchClassifier, "clone", counted)
        method.harden(lab.part.subset(range(300)), fresh, None, Recipe(epochs=1, batch=100), run=Run())
    assert len(calls) == 3 * passes


def test_mixup_is_less_sure(lab: Any) -> None:
    model, x = hardened(lab, Mixup(), 6), lab.test.take(range(N))
    sure, sure_plain = (float(of.predict(x).max(1).values.mean()) for of in (model, lab.model))
    assert lab.accuracy(model) >= 0.95 and sure <= 0.93 and sure_plain >= 0.97


def test_cutmix_sees_both_halves(lab: Any) -> None:
    """Of a picture made of two halves, the less likely of the two labels keeps a share of the probability."""
    x, y = lab.test.take(range(N)), lab.test.labels[:N]
    other = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    halves = torch.cat([x[..., :16], x[other][..., 16:]], dim=-1)[y != y[other]]
    labels = torch.stack([y, y[other]], dim=1)[y != y[other]]

    def lesser(of: TorchClassifier) -> float:
        return float(of.predict(halves).gather(1, labels).min(1).values.mean())

    model = hardened(lab, CutMix(), 8)
    assert lab.accuracy(model) >= 0.95 and lesser(model) >= 0.1 and lesser(lab.model) <= 0.08


def test_clipped_and_noisy_gradients_still_learn(lab: Any) -> None:
    """Abadi et al. 2016, sec. 5: accuracy is lost, and most of it kept."""
    model = hardened(lab, DPSGD(), 8, lr=0.2)
    assert 0.6 <= lab.accuracy(model) <= lab.accuracy(lab.twin) - 0.02


def tiny() -> tuple[TorchClassifier, Tensor, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    return TorchClassifier(module, 3, (1, 4, 4)), torch.rand(7, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])


def clipped_by_hand(model: TorchClassifier, x: Tensor, y: Tensor, clip: float) -> list[Tensor]:
    weights = list(model.module.parameters())
    total = [torch.zeros_like(weight) for weight in weights]
    for row in range(len(y)):
        loss = cross_entropy(model.logits(x[row : row + 1]), y[row : row + 1])
        gradients = torch.autograd.grad(loss, weights)
        length = float(torch.cat([g.flatten() for g in gradients]).norm())
        total = [t + g * min(1.0, clip / length) for t, g in zip(total, gradients, strict=True)]
    return total


@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_each_sample_s_gradient_is_clipped(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.harden.dp_sgd.VALUES", 3 * 180)  # a few samples at a time
    with torch.random.fork_rng():
        model, x, y = tiny()
    found, losses, logits = DPSGD(clip=clip)._clipped_sum(model, x, y, 0.0)
    want = clipped_by_hand(model, x, y, clip)
    for (name, _), exact in zip(model.module.named_parameters(), want, strict=True):
        assert torch.allclose(found[name], exact, atol=1e-5), name
    assert torch.allclose(logits, model.logits(x), atol=1e-5)
    assert torch.allclose(losses, cross_entropy(model.logits(x), y, reduction="none"), atol=1e-5)
    length = float(torch.cat([g.flatten() for g in found.values()]).norm())
    assert length <= clip * len(y) * 1.001
    # The mutant that clips the mean gradient instead: another sum wherever a sample is clipped.
    mean = torch.cat([g.flatten() for g in clipped_by_hand(model, x, y, 1e9)])
    mutant = mean * min(1.0, clip * len(y) / float(mean.norm()))
    assert torch.allclose(mutant, torch.cat([g.flatten() for g in want]), atol=1e-4) == (clip == 100.0)


def test_noise_is_as_large_as_asked_and_the_step_leaves_the_network_in_training() -> None:
    with torch.random.fork_rng():
        model, x, y = tiny()
    recipe = Recipe(epochs=1, precision="fp32")
    drawn = []
    for noise in (0.0, 50.0):
        copy = model.clone()
        copy.module.train()
        DPSGD(clip=0.5, noise=noise).step(recipe, Run())(copy, x, y)
        assert copy.module.training
        drawn.append(torch.cat([weight.grad.flatten() for weight in copy.module.parameters()]))  # type: ignore[union-attr]
    assert float((drawn[1] - drawn[0]).std()) == pytest.approx(50 * 0.5 / 7, rel=0.15)
