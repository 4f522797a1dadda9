"""Laying a pattern over images through a mask."""

from torch import Tensor

from ostiary.core.types import Images


def stamp(x: Images, mask: Tensor, pattern: Tensor) -> Tensor:
    """(1 - mask) * x + mask * pattern, element by element.

    `mask` ([h, w] or [1, h, w], in [0, 1]) and `pattern` ([c, h, w], in [0, 1]) apply to every
    image; with leading axes ([k, 1, 1, h, w], [k, 1, c, h, w]) the result is [k, n, c, h, w]. `x` is
    not changed.
    """
    return x + mask * (pattern - x)
