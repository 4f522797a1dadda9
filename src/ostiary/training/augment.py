"""Batched augmentation on uint8 pixels: one gather for a whole batch instead of one call per image."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def crop_flip(x: Tensor, *, padding: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Shift each image by up to `padding` pixels (reflected border) and mirror half of them.

    x: [n, c, h, w] uint8; gives the same shape. Draws come from `rng` alone.
    """
    n, _, h, w = x.shape
    if padding:
        offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=rng)
        padded = pad(x.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
        rows = (offsets[0, :, None] + torch.arange(h))[:, None, :, None]
        columns = (offsets[1, :, None] + torch.arange(w))[:, None, None, :]
        batch = torch.arange(n)[:, None, None, None]
        channel = torch.arange(x.shape[1])[None, :, None, None]
        x = padded[batch, channel, rows, columns]
    if flip:
        mirrored = torch.rand(n, generator=rng) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    return x
