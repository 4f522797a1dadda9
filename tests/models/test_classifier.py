"""The classifier wrapper: logits, features, activations, digests, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from ostiary.core.errors import ConfigError, ModelError
from ostiary.core.protocols import Classifier
from ostiary.models.classifier import TorchClassifier, last_conv_name
from ostiary.models.zoo import ZOO, build, shape_of

SHAPE = (3, 32, 32)


def images(n: int = 3, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(7))


def tiny(*tail: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *tail)


@pytest.mark.parametrize("arch", ZOO)
def test_features_are_the_input_of_the_head(arch: str) -> None:
    classifier = TorchClassifier(build(arch, 5, width=8), 5, SHAPE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    x = images()
    head = classifier.module.get_submodule(classifier.head_name)
    assert isinstance(head, nn.Linear)
    features = classifier.features(x)
    assert features.shape == (3, head.in_features)
    assert not features.requires_grad
    torch.testing.assert_close(head(features), classifier.logits(x))


@pytest.mark.parametrize("arch", ZOO)
def test_build_is_seeded_and_leaves_the_global_state(arch: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (build(arch, 3, width=4, in_channels=1, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert shape_of(arch, one) == (3, 4, 1)


def test_normalisation_is_inside() -> None:
    module = tiny(nn.Linear(4, 2))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    classifier = TorchClassifier(module, ["a", "b"], SHAPE, mean.tolist(), std.tolist())
    x = images()
    expected = module((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    torch.testing.assert_close(classifier.logits(x), expected)
    torch.testing.assert_close(classifier.predict(x), expected.softmax(1))


def test_logits_have_input_gradients_and_predictions_have_none() -> None:
    classifier = TorchClassifier(tiny(nn.Linear(4, 2)), 2, SHAPE)
    x = images().requires_grad_()
    classifier.logits(x)[:, 0].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not classifier.predict(x).requires_grad
    assert isinstance(classifier, Classifier)


@pytest.mark.parametrize("tail", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.Dropout(0.9)])
def test_head_behind_a_tail_without_weights(tail: nn.Module) -> None:
    classifier = TorchClassifier(tiny(nn.Linear(4, 2), tail), None, SHAPE)
    assert classifier.head_name == "4"
    assert classifier.features(images()).shape == (3, 4)
    assert classifier.classes == ("0", "1")


def test_convolution_as_head() -> None:
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = TorchClassifier(body, 4, SHAPE)
    assert classifier.head_name == "2"
    assert classifier.features(images()).shape == (3, 6 * 30 * 30)
    assert last_conv_name(classifier) == "2"


class Double(nn.Module):
    """Stands between the last layer and the softmax, so that no layer gives the logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_model_that_gives_probabilities() -> None:
    module = tiny(nn.Linear(4, 2), Double(), nn.Softmax(dim=1))
    classifier = TorchClassifier(module, 2, SHAPE)
    assert classifier.caution is not None and "probabilities" in classifier.caution
    torch.testing.assert_close(classifier.predict(images()), module(images()))
    assert TorchClassifier(module[:-1], 2, SHAPE).caution is None


def test_the_logits_before_a_softmax_are_used_and_keep_their_gradient() -> None:
    module = tiny(nn.Linear(4, 2), nn.Softmax(dim=1))
    module[-2].weight.data.mul_(1e4)  # so certain that the logarithm of a probability would be flat
    classifier, plain = TorchClassifier(module, 2, SHAPE), TorchClassifier(module[:-1], 2, SHAPE)
    assert classifier.caution is None
    x = images()
    torch.testing.assert_close(classifier.logits(x), plain.logits(x))
    torch.testing.assert_close(classifier.predict(x), module(x))
    x.requires_grad_()
    classifier.logits(x)[:, 0].sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0
    assert not any(layer._forward_hooks for layer in module.modules())


def test_no_head_is_an_error_only_for_features() -> None:
    classifier = TorchClassifier(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3, SHAPE)
    assert classifier.predict(images()).shape == (3, 3)
    with pytest.raises(ModelError, match="no layer of the model yields its logits"):
        classifier.features(images())
    with pytest.raises(ModelError, match="no last convolution"):
        last_conv_name(classifier)


def test_spectrally_normalised_head() -> None:
    head = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))
    assert TorchClassifier(tiny(head), 2, SHAPE).head_name == "4"


def test_activations_are_not_changed_by_later_layers() -> None:
    classifier = TorchClassifier(tiny(nn.Linear(4, 2)), 2, SHAPE)
    found = classifier.activations(images(), ["0", "1"])
    assert found["0"].min() < 0
    torch.testing.assert_close(found["0"].relu(), found["1"])
    assert not any(module._forward_hooks for module in classifier.module.modules())
    with pytest.raises(ModelError, match="no module 'nowhere'"):
        classifier.activations(images(), ["nowhere"])


def test_clone_shares_nothing_and_digests_follow_the_weights() -> None:
    classifier = TorchClassifier(tiny(nn.Linear(4, 2)), ["a", "b"], SHAPE, name="m")
    copy = classifier.clone()
    assert copy.digest == classifier.digest and copy.classes == ("a", "b") and copy.name == "m"
    before = classifier.digest
    with torch.no_grad():
        copy.module[4].bias += 1
    assert copy.digest != before == classifier.digest
    half = (0.5, 0.5, 0.5)
    assert TorchClassifier(classifier.module, 2, SHAPE, half, half).digest != before


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28)])
def test_wrong_images(shape: tuple[int, int, int]) -> None:
    classifier = TorchClassifier(tiny(nn.Linear(4, 2)), 2, SHAPE)
    given = "x".join(map(str, shape))
    with pytest.raises(ModelError, match=f"images of 3x32x32 .* was given {given}"):
        classifier.predict(images(2, shape))


def test_wrong_modules() -> None:
    with pytest.raises(ModelError, match="2 outputs, 3 classes"):
        TorchClassifier(tiny(nn.Linear(4, 2)), 3, SHAPE)
    with pytest.raises(ModelError, match="cannot be run on images of 1x32x32"):
        TorchClassifier(tiny(nn.Linear(4, 2)), 2, (1, 32, 32))
    with pytest.raises(ModelError, match=r"gives \[4, 3, 32, 32\] for 4 images"):
        TorchClassifier(nn.ReLU(), 2, SHAPE)
    with pytest.raises(ModelError, match="same name"):
        TorchClassifier(tiny(nn.Linear(4, 2)), ["a", "a"], SHAPE)
    with pytest.raises(ModelError, match="normalisation"):
        TorchClassifier(tiny(nn.Linear(4, 2)), 2, SHAPE, (0.5,), (0.5,))
    with pytest.raises(ModelError, match="positive std"):
        TorchClassifier(tiny(nn.Linear(4, 2)), 2, SHAPE, (0.5,) * 3, (0.0,) * 3)
    broken = tiny(nn.Linear(4, 2))
    with torch.no_grad():
        broken[4].bias[0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinity"):
        TorchClassifier(broken, 2, SHAPE)


def test_unknown_architecture() -> None:
    with pytest.raises(ConfigError, match="unknown architecture 'resnet19'") as caught:
        build("resnet19", 10)
    assert caught.value.hint is not None and "resnet18" in caught.value.hint
