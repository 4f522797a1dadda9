"""A trigger of the image's own: two small networks, kept as tensors, give each image its mask and its pattern."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, relu

from ostiary.core.types import Images

CHANNELS = (16, 32, 32, 16)
STRIDES = (2, 2, 1, 1, 1)
STEEPNESS = 10.0
"""How sharply a mask turns from 0 to 1."""

Weights = Float[Tensor, " _"]
"""All weights and biases of one network, one after the other."""


@dataclass(frozen=True, slots=True)
class GeneratedTrigger:
    """The weights of a mask network and of a pattern network, for images of `size` (c, h, w)."""

    mask: Weights
    pattern: Weights
    size: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return tuple(self.size.tolist())

    @torch.no_grad()
    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Give each image the pattern that is its own through the mask that is its own; draws nothing from `rng`."""
        return lay(x, make_mask(self.mask.to(x), x), make_pattern(self.pattern.to(x), x))


def new_weights(channels: int, out: int, rng: torch.Generator) -> Weights:
    """Random weights (He et al. 2015) and zero biases of a network from `channels` to `out` channels."""
    parts = []
    for before, after in _sizes(channels, out):
        scale = math.sqrt(2 / (9 * before))
        parts += [scale * torch.randn(after * before * 9, generator=rng), torch.zeros(after)]
    return torch.cat(parts)


def make_mask(weights: Weights, x: Images) -> Float[Tensor, "n 1 h w"]:
    """One mask per image, in [0, 1] and mostly near one of the ends; at first near 0."""
    return torch.sigmoid(STEEPNESS * (_run(weights, x, 1) - 0.5))


def make_pattern(weights: Weights, x: Images) -> Images:
    """One pattern per image."""
    return torch.sigmoid(_run(weights, x, x.shape[1]))


def lay(x: Images, mask: Float[Tensor, "n 1 h w"], pattern: Images) -> Images:
    """(1 - mask) * x + mask * pattern, each image with its own."""
    return x + mask * (pattern - x)


def _sizes(channels: int, out: int) -> list[tuple[int, int]]:
    return list(pairwise((channels, *CHANNELS, out)))


def _run(weights: Weights, x: Images, out: int) -> Float[Tensor, "n k h w"]:
    """Five 3x3 convolutions, two of which halve the sides and two of which double them again."""
    h, w = x.shape[2:]
    grown = {3: (-(-h // 2), -(-w // 2)), 4: (h, w)}
    x, at = 2 * x - 1, 0
    for layer, (before, after) in enumerate(_sizes(x.shape[1], out)):
        count = after * before * 9
        kernel = weights[at : at + count].view(after, before, 3, 3)
        bias = weights[at + count : at + count + after]
        at += count + after
        if layer in grown:
            x = interpolate(x, size=grown[layer], mode="nearest")
        x = conv2d(x if layer == 0 else relu(x), kernel, bias, stride=STRIDES[layer], padding=1)
    return x
