"""A small convolutional network for 32x32 images, quick on a CPU."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import nn

GROUPS = 4


def small_cnn(classes: int, width: int = 16, in_channels: int = 3) -> nn.Module:
    """Four convolutions with batch normalisation, about 100,000 weights at width 16.

    Takes images [n, in_channels, h, w] with h, w >= 8 and gives logits [n, classes].
    """
    return SmallCNN(classes, width, in_channels, nn.BatchNorm2d)


def small_cnn_gn(classes: int, width: int = 16, in_channels: int = 3) -> nn.Module:
    """The same with group normalisation (Wu, He 2018, arXiv 1803.08494), which keeps no statistics of the data.

    What clients of federated learning train, whose data are unlike (Hsieh et al. 2020, arXiv 1910.00189).
    """
    return SmallCNN(classes, width, in_channels, lambda channels: nn.GroupNorm(math.gcd(GROUPS, channels), channels))


class SmallCNN(nn.Sequential):
    """`features` (convolutions of w, 2 w, 4 w and 8 w channels), mean over the image, `classifier`."""

    def __init__(self, classes: int, width: int, in_channels: int, norm: Callable[[int], nn.Module]) -> None:
        sizes = [in_channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), norm(after), nn.ReLU()]
            if index < 3:
                layers.append(nn.MaxPool2d(2))
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(sizes[-1], classes)
