"""ResNet-18 in the form used on CIFAR: a 3x3 stem without pooling; post- and pre-activation."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


def resnet18(classes: int, width: int = 64, in_channels: int = 3) -> nn.Module:
    """ResNet-18 (He et al. 2016a) with `width`, 2, 4 and 8 times `width` channels.

    Takes images [n, in_channels, h, w] and gives logits [n, classes].
    """
    return ResNet(BasicBlock, classes, width, in_channels, stem_norm=True)


def preact_resnet18(classes: int, width: int = 64, in_channels: int = 3) -> nn.Module:
    """Pre-activation ResNet-18 (He et al. 2016b), `width` as in `resnet18`.

    Takes images [n, in_channels, h, w] and gives logits [n, classes]. Without the paper's last normalisation,
    as in the form that most published CIFAR checkpoints have.
    """
    return ResNet(PreActBlock, classes, width, in_channels, stem_norm=False)


def _conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each normalised, and a shortcut added before the last ReLU."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(before, after, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = _conv3x3(after, after)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Activations [n, c, h, w] to activations [n, c', h / stride, w / stride]."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class PreActBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions; a plain sum at the end."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = _conv3x3(before, after, stride)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = _conv3x3(after, after)
        self.shortcut: nn.Module | None = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Activations [n, c, h, w] to activations [n, c', h / stride, w / stride]."""
        ready = F.relu(self.bn1(x))
        past = x if self.shortcut is None else self.shortcut(ready)
        return cast(Tensor, self.conv2(F.relu(self.bn2(self.conv1(ready)))) + past)


class ResNet(nn.Module):
    """A stem, four groups of two blocks, mean over the image, `linear`."""

    def __init__(
        self, block: type[BasicBlock | PreActBlock], classes: int, width: int, in_channels: int, *, stem_norm: bool
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width)
        # The pre-activation form has no such key, so it must not be an empty batch normalisation.
        self.bn1: nn.Module | None = nn.BatchNorm2d(width) if stem_norm else None
        self.layer1 = nn.Sequential(block(width, width, 1), block(width, width, 1))
        self.layer2 = nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(block(2 * width, 4 * width, 2), block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(block(4 * width, 8 * width, 2), block(8 * width, 8 * width, 1))
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, c, h, w] to logits [n, k]."""
        x = self.conv1(x)
        if self.bn1 is not None:
            x = F.relu(self.bn1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast(Tensor, self.linear(x.mean(dim=(2, 3))))
