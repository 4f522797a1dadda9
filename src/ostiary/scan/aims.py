"""What a trigger is to do: the class that each image should go to, for many searches side by side."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ostiary.core.types import Labels


@runtime_checkable
class Aim(Protocol):
    """What each of several searches wants of the images of a batch."""

    def __len__(self) -> int:
        """How many searches there are."""
        ...

    def wanted(self, rows: Tensor, y: Labels) -> Tensor:
        """The class that each image of classes `y` [n] should go to, [r, n], for the searches `rows` [r]."""
        ...

    def counted(self, rows: Tensor, y: Labels) -> Tensor:
        """Which images count, in groups [g, r, n]; a trigger works as well as in the group where it works worst."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ToClass:
    """All-to-one: one search for each of `targets` [k]; images of the target class itself do not count."""

    targets: Tensor

    def __len__(self) -> int:
        """How many targets there are."""
        return len(self.targets)

    def wanted(self, rows: Tensor, y: Labels) -> Tensor:
        """The target."""
        return self.targets[rows][:, None].expand(-1, len(y))

    def counted(self, rows: Tensor, y: Labels) -> Tensor:
        """Images of other classes."""
        return (self.wanted(rows, y) != y)[None]


@dataclass(frozen=True, slots=True)
class ToShifted:
    """All-to-all: every class goes to the one that lies 1, 2, ..., `classes` - 1 further on; a search for each step."""

    classes: int

    def __len__(self) -> int:
        """How many steps there are."""
        return self.classes - 1

    def wanted(self, rows: Tensor, y: Labels) -> Tensor:
        """The class that lies so far on."""
        return (y + rows[:, None] + 1) % self.classes

    def counted(self, rows: Tensor, y: Labels) -> Tensor:
        """All."""
        return torch.ones(1, len(rows), len(y), dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class OfPairs:
    """Source-specific: images of one class go to another, all others stay; one search for each ordered pair."""

    classes: int

    def __len__(self) -> int:
        """How many pairs there are."""
        return self.classes * (self.classes - 1)

    def sources(self, rows: Tensor) -> Tensor:
        """The class whose images go elsewhere, [r]."""
        return rows // (self.classes - 1)

    def targets(self, rows: Tensor) -> Tensor:
        """Where they go, [r]."""
        at = rows % (self.classes - 1)
        return at + (at >= self.sources(rows))

    def wanted(self, rows: Tensor, y: Labels) -> Tensor:
        """The target for images of the source, else the class itself."""
        return torch.where(y == self.sources(rows)[:, None], self.targets(rows)[:, None], y)

    def counted(self, rows: Tensor, y: Labels) -> Tensor:
        """Images of the source, and all others."""
        own = y == self.sources(rows)[:, None]
        return torch.stack([own, ~own])
