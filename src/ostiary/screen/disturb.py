"""Generic disturbances of pictures, from which a detector learns what does not belong in them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ostiary.core.types import Images
from ostiary.data.base import to_uint8, to_unit

SMALLEST = 2
"""Pixels a side of the smallest block; the largest covers a quarter of a side."""
NOISE = (0.02, 0.1)
SHADE = 0.5
BLEND = (0.1, 0.3)


def disturbed(images: Images, rng: torch.Generator) -> Images:
    """Every image [n, c, h, w] in one of five ways drawn for it, at 8 bits: a new tensor.

    A block of one colour, a block of noise, noise all over, a shadow, another of the images laid over it. Places,
    sizes, colours and strengths are drawn anew for each.
    """
    way, out = torch.randint(len(WAYS), (len(images),), generator=rng), images.clone()
    for number, change in enumerate(WAYS):
        rows = way == number
        if rows.any():
            out[rows] = change(images[rows], rng)
    return to_unit(to_uint8(out))


def _span(n: int, size: int, rng: torch.Generator) -> Tensor:
    """A run of pixels at a random place along a side, [n, size] bool."""
    longest = max(SMALLEST, size // 4)
    length = torch.randint(min(SMALLEST, size), longest + 1, (n, 1), generator=rng)
    start = (torch.rand(n, 1, generator=rng) * (size - length + 1)).long()
    at = torch.arange(size)
    return (at >= start) & (at < start + length)


def _within(low: float, high: float, n: int, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=rng)


def _block(images: Images, paint: Tensor, rng: torch.Generator) -> Images:
    n, _, h, w = images.shape
    inside = (_span(n, h, rng)[:, :, None] & _span(n, w, rng)[:, None])[:, None]
    return torch.where(inside, paint, images)


def _coloured(images: Images, rng: torch.Generator) -> Images:
    return _block(images, torch.rand(*images.shape[:2], 1, 1, generator=rng), rng)


def _speckled(images: Images, rng: torch.Generator) -> Images:
    return _block(images, torch.rand(images.shape, generator=rng), rng)


def _noisy(images: Images, rng: torch.Generator) -> Images:
    return images + _within(*NOISE, len(images), rng) * torch.randn(images.shape, generator=rng)


def _shaded(images: Images, rng: torch.Generator) -> Images:
    """Darker on one side of a random line."""
    n, _, h, w = images.shape
    angle = _within(0.0, 2 * torch.pi, n, rng)
    down, across = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)
    beyond = across * angle.cos() + down * angle.sin() > _within(-0.5, 0.5, n, rng)
    return torch.where(beyond, SHADE * images, images)


def _overlaid(images: Images, rng: torch.Generator) -> Images:
    weight = _within(*BLEND, len(images), rng)
    return (1 - weight) * images + weight * images[torch.randperm(len(images), generator=rng)]


WAYS: tuple[Callable[[Images, torch.Generator], Images], ...] = (_coloured, _speckled, _noisy, _shaded, _overlaid)
