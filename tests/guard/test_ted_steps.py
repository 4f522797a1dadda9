"""TED's ranks against hand-made numbers, its layers, and that its hooks are gone."""

import pytest
import torch
from torch import Tensor, nn

from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.data import ArraySet, digits, trusted_subset
from ostiary.guard.ted import MOST_LAYERS, VALUES, WIDEST, FittedTed, Ted, layers_of, pooled, seen_by
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build


def guard(*layers: tuple[float, ...], labels: tuple[int, ...]) -> FittedTed:
    """A guard whose trusted samples have one feature in each layer."""
    features, nothing = torch.tensor(layers).T.contiguous(), torch.empty(0)
    widths = torch.ones(len(layers), dtype=torch.long)
    return FittedTed(features, widths, torch.tensor(labels), nothing, nothing, [], 0.0, "")


def classifier(module: nn.Module, shape: tuple[int, int, int] = (3, 32, 32)) -> TorchClassifier:
    return TorchClassifier(module, 10, shape)


def test_the_rank_is_that_of_the_nearest_sample_of_the_class() -> None:
    """At 3 the samples at 2, 1, 0 and 10 are 1, 2, 3 and 7 away: the class 1 comes first, the class 0 second."""
    made = guard((0.0, 1.0, 2.0, 10.0), (5.0, 5.0, 5.0, 5.5), labels=(0, 0, 1, 1))
    seen = torch.tensor([[3.0, 5.4], [3.0, 5.4], [3.0, 5.4]])
    assert made.course(seen, torch.tensor([0, 1, 2])).tolist() == [[1, 1], [0, 0], [4, 4]]


def test_a_trusted_sample_is_not_its_own_neighbour() -> None:
    made = guard((0.0, 1.0, 2.0, 10.0), labels=(0, 0, 1, 1))
    assert made.course(made.features, made.labels, own=True)[:, 0].tolist() == [0, 0, 2, 0]


class Fork(nn.Module):
    """A convolution, then two that take the same tensor, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.head((self.left(x) + self.right(x)).relu().mean((2, 3)))


def test_layers_are_what_weights_take_once_each() -> None:
    assert layers_of(classifier(Fork())) == ["left", "head"], "the image is no layer, and one tensor is one layer"
    names = layers_of(classifier(build("resnet18", 10, width=8)))
    assert len(names) == len(set(names)) == MOST_LAYERS and names[-1] == "linear"


def test_a_model_with_folded_normalisation_is_seen_alike() -> None:
    model = classifier(build("vgg11-bn", 10, width=8))
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = (seen_by(one, layers_of(model), x) for one in (model, fused_inference(model)))
    assert len(ours[0]) == 9 and torch.equal(ours[0][-1], ours[1])
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-4)


def test_hooks_are_gone_even_after_an_error() -> None:
    model = classifier(build("small-cnn", 10, width=8))
    x = torch.rand(2, 3, 32, 32)
    seen_by(model, layers_of(model), x)
    with pytest.raises(Exception, match="takes images of"):
        seen_by(model, layers_of(model), x[:, :, :8])
    assert not any(module._forward_pre_hooks for module in model.module.modules())


@pytest.mark.parametrize(
    ("shape", "width"),
    [((16, 32, 32), 16 * 64), ((2048, 1, 1), 2048), ((2048, 7, 7), 2048), ((8, 2, 16), 8 * 2 * 11), ((70, 12), 12)],
)
def test_what_a_layer_takes_is_kept_small(shape: tuple[int, ...], width: int) -> None:
    x = torch.rand(3, *shape)
    assert pooled(x).shape == (3, width)
    assert pooled(x).mean() == pytest.approx(float(x.mean()), abs=0.02)


def test_small_and_wide_layers() -> None:
    few = torch.rand(3, 8, 4, 4)
    assert torch.equal(pooled(few), few.flatten(1)) and few[0].numel() <= VALUES
    assert pooled(torch.rand(2, 5 * WIDEST)).shape == (2, WIDEST)


def test_a_model_that_is_never_right_is_refused() -> None:
    module = build("small-cnn", 10, width=4)
    with torch.no_grad():
        module.classifier.bias[0] = 1e3  # type: ignore[union-attr,index]
    data = trusted_subset(digits("test"), 120, seed=0)
    none_of_it = ArraySet(data.pixels(range(120)), data.labels.clamp(min=1), data.classes)
    with pytest.raises(NotMet, match="predicts rightly, has 0"):
        Ted().fit(classifier(module), none_of_it, run=Run())
