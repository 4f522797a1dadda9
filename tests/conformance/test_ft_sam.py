"""FT-SAM: Zhu et al. 2023, sec. 4: fine-tuning by the gradient at the worst weights nearby, relative to their size."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import ft_sam
from ostiary.repair.ft_sam import SMOOTHING, FtSam, climb, still_statistics


def test_a_move_is_relative_to_the_weights_and_of_the_asked_length() -> None:
    """By hand: T g = (6, -8, 0), of length 10, so the move is rho T (T g) / 10."""
    weights = [torch.tensor([2.0, -4.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, -2.0]), torch.tensor([5.0])
    climb(weights, 0.5)
    assert torch.allclose(weights[0], torch.tensor([2.0 + 0.5 * 2 * 6 / 10, -4.0 - 0.5 * 4 * 8 / 10]))
    assert weights[1] == 0, "a weight of 0 does not move"
    moved = (weights[0].detach() - torch.tensor([2.0, -4.0])) / torch.tensor([2.0, 4.0])
    assert moved.norm() == pytest.approx(0.5)


class Caught(Exception):
    """Ends a repair once its step is at hand."""


def step_of(
    model: TorchClassifier, monkeypatch: pytest.MonkeyPatch, lab: Any, **kw: Any
) -> tuple[Any, TorchClassifier]:
    """The function that leaves a step's gradient, and the copy it works on."""
    kept: list[Any] = []

    def catch(copy: TorchClassifier, *args: Any, backward: Any, **more: Any) -> None:
        kept.extend((backward, copy))
        raise Caught

    monkeypatch.setattr(ft_sam, "fine_tune", catch)
    with pytest.raises(Caught):
        FtSam(**kw).repair(model, lab.trusted, None, run=Run())
    return kept[0], kept[1]


def test_a_step_takes_the_gradient_there_and_leaves_weights_and_statistics_here(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = lab.trusted.take(range(30)), lab.trusted.labels[:30]
    backward, copy = step_of(lab.model, monkeypatch, lab, rho=2.0)
    before = [weight.detach().clone() for weight in copy.module.parameters()]
    copy.module.train()
    loss = backward(x, y)
    assert all(torch.equal(old, new) for old, new in zip(before, copy.module.parameters(), strict=True))
    found = [weight.grad.clone() for weight in copy.module.parameters()]

    other = lab.model.clone()
    other.module.train()
    want = cross_entropy(other.logits(x), y, label_smoothing=SMOOTHING)
    want.backward()
    assert float(loss) == pytest.approx(float(want.detach()), rel=1e-5)
    norms = [(m.running_mean, m.running_var) for m in other.module.modules() if isinstance(m, nn.BatchNorm2d)]
    own = [(m.running_mean, m.running_var) for m in copy.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.allclose(a, b) for one, two in zip(norms, own, strict=True) for a, b in zip(one, two, strict=True))
    here = [weight.grad.clone() for weight in other.module.parameters()]
    climb(list(other.module.parameters()), 2.0)
    other.module.zero_grad()
    cross_entropy(other.logits(x), y, label_smoothing=SMOOTHING).backward()
    there = [weight.grad for weight in other.module.parameters()]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, there, strict=True))
    assert not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, here, strict=True))


def test_statistics_stand_still_within_the_block_alone() -> None:
    norm = nn.BatchNorm2d(2)
    x: Tensor = torch.rand(4, 2, 3, 3) + 5
    with still_statistics(norm):
        norm(x)
    assert not norm.running_mean.any()  # type: ignore[union-attr]
    norm(x)
    assert norm.running_mean.all()  # type: ignore[union-attr]


def moves(lab: Any, made: TorchClassifier) -> bool:
    """At the rho that the paper takes for larger images: on the digits fine-tuning leaves the backdoor whole."""
    return lab.accuracy(made) >= lab.accuracy(lab.model) - 0.04 and lab.asr(made) <= 0.8


def test_it_moves_a_backdoor_that_fine_tuning_leaves(lab: Any) -> None:
    assert moves(lab, FtSam(rho=8.0).repair(lab.model, lab.trusted, None, run=Run()).model)


def test_mutant_that_stays_where_it_is_does_not(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ft_sam, "climb", lambda weights, rho: None)
    assert not moves(lab, FtSam(rho=8.0).repair(lab.model, lab.trusted, None, run=Run()).model)
