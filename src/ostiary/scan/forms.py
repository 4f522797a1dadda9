"""Forms a trigger may have, each with a measure of how large it is: what the search in `inversion` works on.

A form turns free parameters ("raw", [k, ...]: one row for each class that is searched) into the parts of
a trigger, lays it over images, and measures it. The smallest trigger of a form that works is compared
between classes; sizes of different forms are not comparable.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ostiary.core.records import Candidate, FormName
from ostiary.core.types import Images
from ostiary.perturb import stamp

Parts = tuple[Tensor, ...]
EPS = 1e-6
"""Keeps the slope of a length finite where it is zero."""


@runtime_checkable
class Form(Protocol):
    """One family of triggers.

    `grows` says that a search begins with next to nothing, so that early on a trigger's success tells more than
    its size.
    """

    grows: ClassVar[bool]

    def start(self, shape: tuple[int, int, int], rng: torch.Generator) -> Parts:
        """Raw parameters to begin with, for images (c, h, w); a first axis of 1."""
        ...

    def parts(self, raw: Parts) -> Parts:
        """What the raw parameters stand for."""
        ...

    def apply(self, x: Images, parts: Parts) -> Tensor:
        """The trigger of every class over every image, [k, n, c, h, w]; `x` is not changed."""
        ...

    def size(self, parts: Parts) -> Tensor:
        """How large each class's trigger is, [k]."""
        ...


@dataclass(frozen=True, slots=True)
class Patch:
    """A mask [k, 1, h, w] and a pattern [k, c, h, w], both in [0, 1]; the size is the mask's sum, in pixels."""

    grows: ClassVar[bool] = False

    def start(self, shape: tuple[int, int, int], rng: torch.Generator) -> Parts:
        """A random mask and a random pattern."""
        c, h, w = shape
        return tuple(_unsquash(torch.rand(1, channels, h, w, generator=rng)) for channels in (1, c))

    def parts(self, raw: Parts) -> Parts:
        """Mask and pattern."""
        return tuple(map(squash, raw))

    def apply(self, x: Images, parts: Parts) -> Tensor:
        """(1 - mask) x + mask pattern."""
        mask, pattern = parts
        return stamp(x, mask.unsqueeze(1), pattern.unsqueeze(1))

    def size(self, parts: Parts) -> Tensor:
        """The sum of the mask."""
        return parts[0].abs().sum((1, 2, 3))


@dataclass(frozen=True, slots=True)
class Frequencies:
    """A change that is made of spatial frequencies and added to every image; the size is the number of frequencies.

    A mask [k, 1, h, w] in [0, 1] and amplitudes [k, c, h, w] over the orthonormal 2-D cosine transform (DCT-II); one
    frequency at full amplitude moves no pixel by more than `amplitude`. Sinusoids and lossy compression's blocks are
    a few frequencies; what fools a network by nature is spread over many.
    """

    grows: ClassVar[bool] = False
    amplitude: float = 32 / 255

    def start(self, shape: tuple[int, int, int], rng: torch.Generator) -> Parts:
        """A faint mask, and amplitudes of a tenth."""
        c, h, w = shape
        return _unsquash(torch.rand(1, 1, h, w, generator=rng) / 10), torch.randn(1, c, h, w, generator=rng) / 10

    def parts(self, raw: Parts) -> Parts:
        """Mask and amplitudes."""
        mask, amplitudes = raw
        h, w = mask.shape[2:]
        return squash(mask), torch.tanh(amplitudes) * self.amplitude * math.sqrt(h * w) / 2

    def apply(self, x: Images, parts: Parts) -> Tensor:
        """Images with the change, in [0, 1]."""
        mask, amplitudes = parts
        rows, columns = (_cosines(n).to(mask) for n in mask.shape[2:])
        change = rows.T @ (mask * amplitudes) @ columns
        return (x + change.unsqueeze(1)).clamp(0, 1)

    def size(self, parts: Parts) -> Tensor:
        """The sum of the mask."""
        return parts[0].sum((1, 2, 3))


@dataclass(frozen=True, slots=True)
class Warp:
    """A smooth field of shifts, [k, 2, grid, grid] control points in pixels; the size is the mean shift in pixels."""

    grows: ClassVar[bool] = True
    grid: int = 6

    def start(self, shape: tuple[int, int, int], rng: torch.Generator) -> Parts:
        """Shifts of a tenth of a pixel."""
        return (torch.randn(1, 2, self.grid, self.grid, generator=rng) * 0.1,)

    def parts(self, raw: Parts) -> Parts:
        """The control points themselves."""
        return raw

    def apply(self, x: Images, parts: Parts) -> Tensor:
        """Every pixel taken from where the field points to; beyond the edge, the edge."""
        (points,) = parts
        (n, _, h, w), k = x.shape, len(points)
        shift = interpolate(points, (h, w), mode="bicubic", align_corners=True)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        scale = torch.tensor([2 / max(w - 1, 1), 2 / max(h - 1, 1)])
        field = torch.stack([columns, rows], dim=2).to(x) + shift.permute(0, 2, 3, 1) * scale.to(x)
        field = field[:, None].expand(k, n, h, w, 2).flatten(0, 1)
        many = x[None].expand(k, *x.shape).flatten(0, 1)
        warped = grid_sample(many, field, mode="bilinear", padding_mode="border", align_corners=True)
        return warped.view(k, *x.shape)

    def size(self, parts: Parts) -> Tensor:
        """The mean length of the shifts."""
        return (parts[0].square().sum(1) + EPS).sqrt().mean((1, 2))


FORMS: dict[FormName, Form] = {"patch": Patch(), "frequencies": Frequencies(), "warp": Warp()}
ARRAYS: dict[FormName, tuple[str, ...]] = {
    "patch": ("mask", "pattern"),
    "frequencies": ("part0", "part1"),
    "warp": ("part0",),
}
"""The artifacts that hold a form's parts, by the ends of their names."""


def with_arrays(candidate: Candidate, read: Callable[[str], np.ndarray]) -> Candidate:
    """The candidate of a kept scan with its arrays; `read` gives an artifact by its name, and raises what it raises."""
    names = ARRAYS[candidate.form]
    arrays = tuple(read(f"{candidate.artifact}-{name}")[candidate.row] for name in names)
    patch = candidate.form == "patch"
    return candidate.model_copy(update=dict(zip(names, arrays, strict=True)) if patch else {"parts": arrays})


def lay_over(x: Images, candidate: Candidate) -> Images:
    """Images with the trigger that a scan recovered, in [0, 1]; `x` is not changed.

    The candidate must hold its arrays: a patch its mask and pattern, another form its parts.
    """
    if candidate.form == "patch":
        arrays = [array for array in (candidate.mask, candidate.pattern) if array is not None]
        mask, pattern = (torch.from_numpy(array).to(x) for array in arrays)
        return stamp(x, mask, pattern)
    own = tuple(torch.from_numpy(part)[None].to(x) for part in candidate.parts)
    return FORMS[candidate.form].apply(x, own)[0]


def squash(raw: Tensor) -> Tensor:
    """From the whole line to (0, 1)."""
    return torch.tanh(raw) / 2 + 0.5


@cache
def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of n values, [n, n]: one frequency a row."""
    at, frequency = torch.arange(n) + 0.5, torch.arange(n)[:, None]
    rows = torch.cos(math.pi / n * frequency * at) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def _unsquash(value: Tensor) -> Tensor:
    return torch.atanh((value - 0.5) * (2 - 1e-3))
