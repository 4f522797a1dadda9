"""Fused copies give the same logits, also where fusing would be wrong."""

import torch
from torch import Tensor, nn

from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build

SHAPE = (3, 16, 16)


def lived_in(module: nn.Module) -> nn.Module:
    """The module with batch statistics unlike those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            size = layer.num_features
            layer.running_mean = torch.randn(size, generator=generator)
            layer.running_var = torch.rand(size, generator=generator) + 0.5
            layer.weight.data = torch.rand(size, generator=generator) + 0.5
    return module


def images() -> Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def norms(classifier: TorchClassifier) -> list[str]:
    return [name for name, layer in classifier.module.named_modules() if isinstance(layer, nn.BatchNorm2d)]


def check(classifier: TorchClassifier, channels_last: bool = False) -> TorchClassifier:
    fused = fused_inference(classifier, channels_last=channels_last)
    found, expected = fused.logits(images()), classifier.logits(images())
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert not any(p.requires_grad for p in fused.module.parameters())
    assert fused.digest == classifier.digest
    return fused


def test_all_pairs_of_a_resnet_are_fused() -> None:
    module = lived_in(build("resnet18", 4, width=4))
    classifier = TorchClassifier(module, 4, SHAPE, (0.4,) * 3, (0.2,) * 3)
    assert norms(check(classifier, channels_last=True)) == []
    assert len(norms(classifier)) == 20
    assert all(p.requires_grad for p in module.parameters())


def test_norms_before_a_convolution_stay() -> None:
    fused = check(TorchClassifier(lived_in(build("wrn-16-1", 4, width=4)), 4, SHAPE))
    assert [name for name in norms(fused) if name.endswith("bn2")] == []
    assert len([name for name in norms(fused) if name.endswith("bn1")]) == 7


class Reuse(nn.Module):
    """The output of `conv` goes to the norm and around it; `other` and `norm2` are an ordinary pair."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.other, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.conv(x)
        out: Tensor = self.head((self.norm2(self.other(self.norm(raw).relu())) + 3 * raw).mean(dim=(2, 3)))
        return out


def test_a_convolution_used_twice_is_not_fused() -> None:
    torch.manual_seed(2)
    fused = check(TorchClassifier(lived_in(Reuse()), 3, SHAPE))
    assert norms(fused) == ["norm"]


class Twice(nn.Module):
    """One convolution called twice, each time with its own norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.two(self.conv(self.one(self.conv(x)))).mean(dim=(2, 3)))
        return out


def test_a_shared_convolution_is_not_fused() -> None:
    torch.manual_seed(2)
    assert norms(check(TorchClassifier(lived_in(Twice()), 3, SHAPE))) == ["one", "two"]


def test_training_mode_of_the_original_is_not_used() -> None:
    classifier = TorchClassifier(lived_in(build("small-cnn", 3, width=4)), 3, SHAPE)
    before = classifier.digest
    expected = classifier.logits(images())
    classifier.module.train()
    torch.testing.assert_close(fused_inference(classifier).logits(images()), expected, rtol=1e-3, atol=1e-4)
    assert classifier.digest == before
