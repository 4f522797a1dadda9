"""Wide ResNet 16-1, with the parameter names of the checkpoints published for NAD (Li et al. 2021)."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


def wrn_16_1(classes: int, width: int = 16, in_channels: int = 3) -> nn.Module:
    """Wide ResNet (Zagoruyko & Komodakis 2016) of depth 16, with `width`, 2 and 4 times `width` channels.

    Takes images [n, in_channels, h, w] and gives logits [n, classes].
    """
    return WideResNet(classes, width, in_channels)


class WideBlock(nn.Module):
    """A pre-activation block; the shortcut starts after the first ReLU where the width changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        same = before == after and stride == 1
        self.convShortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Activations [n, c, h, w] to activations [n, c', h / stride, w / stride]."""
        ready = F.relu(self.bn1(x))
        past = x if self.convShortcut is None else self.convShortcut(ready)
        return cast(Tensor, self.conv2(F.relu(self.bn2(self.conv1(ready)))) + past)


class Group(nn.Module):
    """Two blocks under the name `layer`."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(WideBlock(before, after, stride), WideBlock(after, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Activations [n, c, h, w] to activations [n, c', h / stride, w / stride]."""
        return cast(Tensor, self.layer(x))


class WideResNet(nn.Module):
    """A stem, three groups, a last normalisation, mean over the image, `fc`."""

    def __init__(self, classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.block1 = Group(width, width, 1)
        self.block2 = Group(width, 2 * width, 2)
        self.block3 = Group(2 * width, 4 * width, 2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, c, h, w] to logits [n, k]."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return cast(Tensor, self.fc(F.relu(self.bn1(x)).mean(dim=(2, 3))))
