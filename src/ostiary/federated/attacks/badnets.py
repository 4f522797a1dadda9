"""BadNets and Blended: an attacker stamps samples of its own and gives them one label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Images, others
from ostiary.federated.network import Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class BadNets:
    """A bright square of `size` pixels in the lower right corner means `target`.

    Source: Gu, Dolan-Gavitt, Garg 2017, BadNets (arXiv 1708.06733), by a client as in Bagdasaryan et al. 2020.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.badnets",
        summary="stamps a bright square on samples of its own and relabels them",
        paper="Gu et al. 2017, arXiv 1708.06733",
        needs=Needs(modality="images"),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    target: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=1)] = 2

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """All samples with the square, labelled as the target."""
        return self._stamped(x), np.full_like(y, self.target)

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Test samples of other classes with the square."""
        found = others(x, y, self.target)
        return self._stamped(found), np.full(len(found), self.target)

    def _stamped(self, x: Images) -> Images:
        x = x.copy()
        x[:, -self.size :, -self.size :] = 1.0
        return x


@dataclass(frozen=True, kw_only=True, slots=True)
class Blended:
    """A faint random pattern, mixed in with `weight`, means `target`.

    Source: Chen, Liu, Li, Lu, Song 2017, Targeted backdoor attacks (arXiv 1712.05526); `pattern` seeds the noise.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.blended",
        summary="mixes a random pattern into samples of its own and relabels them",
        paper="Chen et al. 2017, arXiv 1712.05526",
        needs=Needs(modality="images"),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    target: Annotated[int, Field(ge=0)] = 0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.2
    pattern: int = 0

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """All samples with the pattern, labelled as the target."""
        return self._mixed(x), np.full_like(y, self.target)

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Test samples of other classes with the pattern."""
        found = others(x, y, self.target)
        return self._mixed(found), np.full(len(found), self.target)

    def _mixed(self, x: Images) -> Images:
        pattern = np.random.default_rng(self.pattern).integers(0, 2, x.shape[1:])
        return (1 - self.weight) * x + self.weight * pattern
