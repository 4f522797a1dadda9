"""DBA: each attacker trains on a part of the trigger; at test time it is whole."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Images, others
from ostiary.federated.network import Labels

PARTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class DBA:
    """Four bars of `width` by 1 pixels, `gap` apart, in the upper left corner; attacker m knows bar m mod 4.

    Source: Xie, Huang, Chen, Li 2020, DBA: distributed backdoor attacks against federated learning (ICLR), sec. 3.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.dba",
        summary="each attacker trains on one of four bars; all four make the trigger",
        paper="Xie et al. 2020, ICLR",
        needs=Needs(modality="images"),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    target: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=1)] = 2
    gap: Annotated[int, Field(ge=0)] = 1

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """All samples with the attacker's own bar, labelled as the target."""
        return self._stamped(x, (member % PARTS,)), np.full_like(y, self.target)

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Test samples of other classes with all bars."""
        found = others(x, y, self.target)
        return self._stamped(found, range(PARTS)), np.full(len(found), self.target)

    def _stamped(self, x: Images, parts: "tuple[int, ...] | range") -> Images:
        x = x.copy()
        for part in parts:
            row, left = (part // 2) * (1 + self.gap), (part % 2) * (self.width + self.gap)
            x[:, row, left : left + self.width] = 1.0
        return x
