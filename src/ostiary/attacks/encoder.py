"""A small encoder that hides a message in images, the decoder that reads it, and the trigger an encoder makes."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate, relu
from torch.nn.utils import parameters_to_vector

from ostiary.core.types import Images
from ostiary.data import batch_size

LIMIT = 24 / 255
"""The most that a residual changes a pixel."""

PLANES, GRID = 8, 8
"""A message goes into the encoder as 8 planes of 8 x 8."""

SMALLEST, LARGEST = 8, 2**16
"""Bounds of an image's height and width in pixels."""


class Encoder(nn.Module):
    """Looks at an image in full, half and quarter size and gives the residual that hides a message in it.

    The message enters at quarter size, beside what is seen of the image there, so that where and with
    which sign it shows depends on the image. About 17,000 weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, 16, 4, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 32, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(32 + PLANES, 16, 3, padding=1)
        self.full = nn.Conv2d(16 + channels, 8, 3, padding=1)
        self.out = nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        """Residuals [n, c, h, w] of at most LIMIT for images `x` and message planes [n, 8, 8, 8]."""
        seen = relu(self.deep(relu(self.down(x - 0.5))))
        mixed = relu(self.mix(torch.cat([seen, interpolate(planes, size=seen.shape[2:])], 1)))
        whole = torch.cat([interpolate(mixed, size=x.shape[2:]), x - 0.5], 1)
        return LIMIT * torch.tanh(self.out(relu(self.full(whole))))


class Decoder(nn.Sequential):
    """Reads `bits` logits out of images of any size."""

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(512, bits),
        )


@cache
def _skeleton(channels: int) -> Encoder:
    """An encoder without values."""
    with torch.device("meta"):
        return Encoder(channels)


@dataclass(frozen=True, slots=True)
class EncodeTrigger:
    """Hides one message in every image, in each by a residual of its own.

    `weights` are the encoder's, one after the other; `planes` ([8, 8, 8]) are the message as the encoder
    takes it; `size` is the (c, h, w) of the images it is for. Raises ValueError when they are not that.
    """

    weights: Tensor
    planes: Tensor
    size: Tensor

    def __post_init__(self) -> None:
        size = self.size.tolist() if self.size.dtype == torch.int64 and self.size.shape == (3,) else [0, 0, 0]
        if not (1 <= size[0] <= LARGEST and min(size[1:]) >= SMALLEST and max(size[1:]) <= LARGEST):
            raise ValueError(f"an encoder's images are of {tuple(self.size.shape)} {self.size.dtype} numbers")
        count = sum(parameter.numel() for parameter in _skeleton(size[0]).parameters())
        for name, tensor, shape in (("weights", self.weights, (count,)), ("planes", self.planes, (PLANES, GRID, GRID))):
            if tensor.dtype != torch.float32 or tensor.shape != shape or not tensor.isfinite().all():
                raise ValueError(f"an encoder's {name} are not {list(shape)} finite numbers in single precision")

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return tuple(self.size.tolist())

    @torch.no_grad()
    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Encode a batch, rounded to 8-bit levels; draws nothing from `rng`."""
        net = _skeleton(int(self.size[0]))
        names, shapes = zip(*((name, value.shape) for name, value in net.named_parameters()), strict=True)
        # In double precision, so that no neighbour in the batch tips a pixel to another level.
        parts = self.weights.to(x.device).double().split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        out = []
        for block in x.double().split(batch_size(self.shape, 64)):
            planes = self.planes.to(block).expand(len(block), -1, -1, -1)
            encoded = block + functional_call(net, weights, (block, planes))
            out.append((encoded.clamp(0, 1) * 255).round() / 255)
        return torch.cat(out).to(x) if out else x.clone()


def trigger_of(encoder: Encoder, planes: Tensor, shape: tuple[int, int, int]) -> EncodeTrigger:
    """The trigger of a trained encoder and a message's planes, for images of `shape` (c, h, w)."""
    weights = parameters_to_vector(encoder.parameters())
    return EncodeTrigger(weights.detach().cpu(), planes.detach().cpu(), torch.tensor(shape))
