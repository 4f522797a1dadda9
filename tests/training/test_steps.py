"""What is learnt instead of a batch: mixtures against their formulas, and adversarial examples."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Recipe
from ostiary.training.steps import adversarial_step, mixture_step, pasted_box, weighted_mean

RECIPE = Recipe(epochs=1, precision="fp32")
CPU = torch.device("cpu")


def linear() -> tuple[TorchClassifier, nn.Linear, list[Tensor]]:
    """A linear model of 1x2x2 images, its layer, and what the layer was given."""
    layer = nn.Linear(4, 3)
    model = TorchClassifier(nn.Sequential(nn.Flatten(), layer), 3, (1, 2, 2))
    caught: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    return model, layer, caught


def test_mixup_learns_the_mixture() -> None:
    model, layer, caught = linear()
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    rng = Run().generator("mixup")
    loss, hits = mixture_step(RECIPE, CPU, mix=weighted_mean, alpha=1e6, rng=rng)(model, x, y)
    other = torch.randperm(6, generator=Run().generator("mixup"))
    mixed = (x.flatten(1) + x[other].flatten(1)) / 2
    assert torch.allclose(caught[0], mixed, atol=1e-2), "a Beta of 1e6 is all but one half"
    with torch.no_grad():
        logits = layer(caught[0])
    want = (cross_entropy(logits, y) + cross_entropy(logits, y[other])) / 2
    assert torch.allclose(loss, want, atol=1e-2) and not loss.requires_grad
    right = (logits.argmax(1) == y).float() + (logits.argmax(1) == y[other]).float()
    assert float(hits) == pytest.approx(float(right.sum()) / 2, abs=0.05)
    assert layer.weight.grad is not None and layer.weight.grad.any()


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.75, 1.0])
def test_a_box_is_pasted_and_weighs_what_is_left(weight: float) -> None:
    x, other = torch.zeros(2, 3, 16, 12), torch.ones(2, 3, 16, 12)
    mix = pasted_box(Run().generator("box"))
    for _ in range(20):
        mixed, left = mix(x, other, weight)
        assert left == pytest.approx(1 - float(mixed.mean())) and left >= weight - 0.1
        rows, columns = mixed[0, 0].any(1).nonzero(), mixed[0, 0].any(0).nonzero()
        if len(rows):
            assert mixed[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all(), "one box"
    assert not x.any(), "the batch is not changed"


def test_a_box_has_the_sides_of_the_formula() -> None:
    x, other = torch.zeros(1, 1, 100, 100), torch.ones(1, 1, 100, 100)
    shares = [pasted_box(Run(seed=seed).generator("box"))(x, other, 0.75)[1] for seed in range(50)]
    assert min(shares) == pytest.approx(0.75, abs=0.01), "a whole box is a quarter of the area"
    assert max(shares) > 0.8, "boxes at the edge are cut off"


def test_adversarial_examples_are_learnt_within_their_ball() -> None:
    model, layer, caught = linear()
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.tensor([0, 1, 2, 0, 1, 2])
    step = adversarial_step(RECIPE, CPU, eps=0.1, length=0.05, steps=3, rng=Run().generator("adversarial"))
    loss, _ = step(model, x, y)
    assert len(caught) == 4, "three steps uphill, and what is learnt"
    learnt = caught[-1]
    assert 0 < float((learnt - 0.5).abs().max()) <= 0.1 + 1e-6
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(cross_entropy(layer(learnt), y)))
        assert float(loss) > float(cross_entropy(model.logits(x), y)), "and the loss is higher there"
