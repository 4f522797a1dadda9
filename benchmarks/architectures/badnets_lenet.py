"""The LeNet-like network of the checkpoints published with badnets-pytorch, as factories for --arch.

Takes images in [0, 1] and maps them to [-1, 1] itself. Gives logits: the softmax of the published code is left out,
as it has no weights.
"""

from torch import Tensor, nn


class BadNetsLeNet(nn.Module):
    """Two 5x5 convolutions (16, 32 channels) with mean pooling, then two linear layers."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels, side, _ = input_shape
        # Each 5x5 convolution without padding takes 4 pixels off, each pooling halves.
        rest = ((side - 4) // 2 - 4) // 2
        self.conv1 = nn.Sequential(nn.Conv2d(channels, 16, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.fc1 = nn.Sequential(nn.Linear(32 * rest * rest, 512), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, c, h, w] in [0, 1] to logits [n, 10]."""
        x = self.conv2(self.conv1((x - 0.5) / 0.5))
        logits: Tensor = self.fc2(self.fc1(x.flatten(1)))
        return logits


def mnist() -> nn.Module:
    """The network for MNIST, 1x28x28."""
    return BadNetsLeNet((1, 28, 28))


def cifar10() -> nn.Module:
    """The network for CIFAR-10, 3x32x32."""
    return BadNetsLeNet((3, 32, 32))
