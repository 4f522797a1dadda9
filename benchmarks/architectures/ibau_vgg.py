"""The VGG-like network of the checkpoints published with I-BAU (Zeng et al. 2022), as factories for --arch.

Takes images [n, 3, 32, 32] in [0, 1] without further normalisation.
"""

from torch import Tensor, nn


class IBAUNet(nn.Module):
    """Three blocks of two convolutions (32, 64, 128 channels) with ELU, then one linear layer."""

    input_shape = (3, 32, 32)

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, dropout in ((32, 0.3), (64, 0.4), (128, 0.4)):
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU()]
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, 32, 32] to logits [n, k]."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def cifar10() -> nn.Module:
    """The network for the 10 classes of CIFAR-10."""
    return IBAUNet(10)


def gtsrb() -> nn.Module:
    """The network for the 43 classes of GTSRB."""
    return IBAUNet(43)
