"""VGG-11 with batch normalisation in the form used on CIFAR."""

from torch import nn

# Channels in units of the width; None halves the image.
PLAN = (1, None, 2, None, 4, 4, None, 8, 8, None, 8, 8, None)


def vgg11_bn(classes: int, width: int = 64, in_channels: int = 3) -> nn.Module:
    """VGG-11 (Simonyan & Zisserman 2015) with batch normalisation, mean pooling and one linear layer.

    Takes images [n, in_channels, h, w] with h, w >= 32 and gives logits [n, classes]. The three large linear
    layers of the paper are one, as is usual at 32x32.
    """
    return VGG(classes, width, in_channels)


class VGG(nn.Sequential):
    """`features`, mean over the image, `classifier`."""

    def __init__(self, classes: int, width: int, in_channels: int) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for factor in PLAN:
            if factor is None:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            channels = factor * width
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, classes)
