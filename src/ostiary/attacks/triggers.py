"""Triggers: pure functions over images, made of tensors alone, so that a truth folder can hold them."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ostiary.attacks.encoder import EncodeTrigger
from ostiary.attacks.generator import GeneratedTrigger
from ostiary.core.types import Images
from ostiary.perturb import stamp


@dataclass(frozen=True, slots=True)
class StampTrigger:
    """One mask ([h, w]) and one pattern ([c, h, w]), both in [0, 1]."""

    mask: Tensor
    pattern: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return tuple(self.pattern.shape)

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Stamp a batch; a fixed trigger draws nothing from `rng`."""
        return stamp(x, self.mask.to(x), self.pattern.to(x))


@dataclass(frozen=True, slots=True)
class AddTrigger:
    """One signal ([c, h, w]) that is added; sums outside [0, 1] are cut off."""

    signal: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return tuple(self.signal.shape)

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Add the signal to a batch; draws nothing from `rng`."""
        return (x + self.signal.to(x)).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class WarpTrigger:
    """One field ([h, w, 2]) that says where each pixel is taken from, and how many channels the images have.

    Coordinates are those of `grid_sample` with corners aligned: x before y, -1 to 1. `noise` is how
    far each coordinate is shifted at random besides, in the same unit; 0 gives a fixed warp.
    """

    field: Tensor
    channels: Tensor
    noise: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return (int(self.channels), *self.field.shape[:2])

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Warp a batch; only a noisy trigger draws from `rng`."""
        field = self.field[None].expand(len(x), -1, -1, -1)
        if self.noise > 0:
            field = field + self.noise * (2 * torch.rand(field.shape, generator=rng) - 1)
        return grid_sample(x, field.clamp(-1, 1).to(x), mode="bilinear", align_corners=True).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class QuantiseTrigger:
    """Fewer levels per channel, with Floyd-Steinberg dithering: `levels` (a whole number), for images of `size`."""

    levels: Tensor
    size: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The (c, h, w) of the images it is for."""
        return tuple(self.size.tolist())

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Quantise a batch; draws nothing from `rng`."""
        steps = float(self.levels) - 1
        rest = x.clone()
        out = torch.empty_like(x)
        h, w = x.shape[2:]
        for row in range(h):
            for column in range(w):
                value = rest[:, :, row, column]
                level = (value.clamp(0, 1) * steps).round() / steps
                out[:, :, row, column] = level
                error = value - level
                for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                    if row + down < h and 0 <= column + right < w:
                        rest[:, :, row + down, column + right] += error * (share / 16)
        return out


Trigger = StampTrigger | AddTrigger | WarpTrigger | QuantiseTrigger | GeneratedTrigger | EncodeTrigger

KINDS: dict[str, type[Trigger]] = {
    "stamp": StampTrigger,
    "add": AddTrigger,
    "warp": WarpTrigger,
    "quantise": QuantiseTrigger,
    "generated": GeneratedTrigger,
    "encode": EncodeTrigger,
}
"""The name of each kind of trigger in a truth folder."""


def kind_of(trigger: Trigger) -> str:
    """The name of the trigger's kind."""
    return next(name for name, kind in KINDS.items() if type(trigger) is kind)


def tensors_of(trigger: Trigger) -> dict[str, Tensor]:
    """The tensors that the trigger is made of, by field."""
    return {field.name: getattr(trigger, field.name).contiguous() for field in dataclasses.fields(trigger)}
