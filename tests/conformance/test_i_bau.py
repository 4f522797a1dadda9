"""I-BAU: Zeng et al. 2022, sec. 4: unlearn a perturbation, by a gradient that knows how it follows the weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import i_bau
from ostiary.repair.i_bau import RADIUS, STEP, IBau


def tiny() -> tuple[TorchClassifier, Tensor, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    return TorchClassifier(module, 3, (3, 2, 2)), x, torch.arange(8) % 3


def highest(method: IBau, model: TorchClassifier, x: Tensor, y: Tensor) -> Tensor:
    """The perturbation at which the inner problem rests."""
    delta = torch.zeros(1, 3, 2, 2).double()
    for _ in range(300):
        delta = delta.requires_grad_()
        (slope,) = torch.autograd.grad(method._inner(model, delta, x, y), delta)
        delta = (delta - STEP * slope).detach()
    return delta


def total(terms: int) -> tuple[Tensor, Tensor]:
    """Gradients of some weights by the method, and by differences of the outer loss at the inner problem's answers."""
    model, x, y = tiny()
    method = IBau(decay=0.3, terms=terms, share=1.0)
    weights: list[Tensor] = list(model.module.parameters())
    still = torch.optim.SGD(weights, lr=0.0)
    method._descend(model, weights, still, highest(method, model, x, y), x, y)
    found, by_hand = [], []
    for weight in weights:
        flat, slope = weight.data.view(-1), weight.grad.view(-1)  # type: ignore[union-attr]
        for place in range(0, len(flat), 11):
            losses = []
            for change in (1e-4, -1e-4):
                flat[place] += change
                delta = highest(method, model, x, y)
                losses.append(cross_entropy(model.logits(x + delta), y).item())
                flat[place] -= change
            found.append(slope[place])
            by_hand.append((losses[0] - losses[1]) / 2e-4)
    return torch.stack(found), torch.tensor(by_hand).double()


def test_the_gradient_is_that_of_the_loss_at_the_perturbation_that_follows_the_weights() -> None:
    found, by_hand = total(terms=200)
    assert torch.allclose(found, by_hand, atol=1e-5)


def test_mutant_that_does_not_follow_the_perturbation_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inner step of length 0 leaves the direct part alone."""
    monkeypatch.setattr(i_bau, "STEP", 0.0)
    found, by_hand = total(terms=5)
    assert not torch.allclose(found, by_hand, atol=1e-3)


def test_the_climb_raises_the_loss_and_stays_in_its_ball(lab: Any) -> None:
    x, y = lab.trusted.take(range(60)), lab.trusted.labels[:60]
    delta = torch.zeros(1, 3, 32, 32)
    for _ in range(10):
        delta = IBau()._climb(lab.model, delta, x, y)
        assert float(delta.norm()) <= RADIUS * (1 + 1e-5)
    with torch.no_grad():
        assert cross_entropy(lab.model.logits(x + delta), y) > 1 + cross_entropy(lab.model.logits(x), y)


def closes(lab: Any, **kw: Any) -> bool:
    """Much of the backdoor goes; 135 trusted images cost some accuracy."""
    made = IBau(**kw).repair(lab.model, lab.trusted, None, run=Run()).model
    return lab.accuracy(made) >= lab.accuracy(lab.model) - 0.1 and lab.asr(made) <= 0.5


def test_it_unlearns_most_of_the_backdoor(lab: Any) -> None:
    assert closes(lab)


def test_mutant_that_does_not_climb_unlearns_nothing(lab: Any) -> None:
    assert not closes(lab, inner_steps=1, inner_lr=1e-9)
