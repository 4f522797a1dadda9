"""The steps that adversarial examples are made of, against numbers made by hand."""

import pytest
import torch
from torch import nn

from ostiary.models.classifier import TorchClassifier
from ostiary.perturb.fgsm import fgsm
from ostiary.perturb.gradient import Norm, draw_in_ball, input_gradient, lengths, project, steepest
from ostiary.perturb.pgd import pgd

W = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]])


@pytest.fixture
def linear() -> TorchClassifier:
    """Two classes of 1x2x2 images; the logit of class 0 is x . (1, -2, 0, 3)."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = W.clone()
    return TorchClassifier(nn.Sequential(nn.Flatten(), layer), 2, (1, 2, 2))


def test_the_gradient_is_that_of_the_loss(linear: TorchClassifier) -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    y = torch.tensor([0, 1, 0])
    found = input_gradient(linear, x, y)
    p = linear.predict(x)[:, 0]
    factor = p - (y == 0).float()
    assert torch.allclose(found.flatten(1), factor[:, None] * W[0], atol=1e-6)
    capped = input_gradient(linear, x, y, most=0.5)
    assert torch.equal(capped[1], torch.zeros(1, 2, 2)) and torch.allclose(capped[0], found[0])


def test_fgsm_on_a_linear_model_moves_each_value_by_eps(linear: TorchClassifier) -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    out = fgsm(linear, x, torch.tensor([0]), eps=0.1)
    assert torch.allclose((out - x).flatten(), torch.tensor([-0.1, 0.1, 0.0, -0.1]), atol=1e-6)
    edge = fgsm(linear, torch.tensor([[[[0.05, 0.97], [0.5, 0.5]]]]), torch.tensor([0]), eps=0.1)
    assert torch.allclose(edge.flatten(), torch.tensor([0.0, 1.0, 0.5, 0.4]), atol=1e-6)


def test_pgd_ends_at_the_far_point_of_the_ball(linear: TorchClassifier) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    rng = torch.Generator().manual_seed(0)
    out = pgd(linear, x, y, eps=0.1, step=0.05, steps=8, rng=rng)
    assert torch.allclose((out - x).flatten()[[0, 1, 3]], torch.tensor([-0.1, 0.1, -0.1]), atol=1e-6)
    out = pgd(linear, x, y, eps=0.1, step=0.05, steps=30, norm="l2")
    assert torch.allclose((out - x).flatten(), -0.1 * W[0] / W[0].norm(), atol=1e-6)
    out = pgd(linear, x, y, eps=0.1, step=0.05, steps=30, norm="l2", targeted=True)
    assert torch.allclose((out - x).flatten(), 0.1 * W[0] / W[0].norm(), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_directions_and_projections(norm: Norm) -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(50, 3, 4, 4, generator=rng)
    x[0] = 0

    def size(delta: torch.Tensor) -> torch.Tensor:
        return lengths(delta).flatten() if norm == "l2" else delta.abs().flatten(1).amax(1)

    assert torch.allclose(size(steepest(x, norm))[1:], torch.ones(49)) and not steepest(x, norm)[0].any()
    near = project(x, 0.5, norm)
    assert (size(near) <= 0.5 + 1e-6).all() and torch.equal(project(near * 0.9, 0.5, norm), near * 0.9)
    drawn = draw_in_ball(x, 0.5, norm, rng=rng)
    assert (size(drawn) <= 0.5 + 1e-6).all() and float(size(drawn).max()) > 0.49 and drawn.mean().abs() < 0.02
