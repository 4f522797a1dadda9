"""Label flipping: the samples of one class under the label of another."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Images
from ostiary.federated.network import Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFlip:
    """Samples of class `source` are labelled `target`; it harms the main task, so that it is no backdoor proper.

    Source: Tolpegin, Truex, Gursoy, Liu 2020, Data poisoning attacks against federated learning systems (ESORICS;
    arXiv 2007.08432), sec. 3.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.label-flip",
        summary="labels samples of one class as another",
        paper="Tolpegin et al. 2020, ESORICS, arXiv 2007.08432",
        needs=Needs(modality="images"),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    target: Annotated[int, Field(ge=0)] = 1
    source: Annotated[int, Field(ge=0)] = 7

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """All samples, those of the source class relabelled."""
        return x.copy(), np.where(y == self.source, self.target, y)

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Test samples of the source class."""
        found = np.array(x[y == self.source])
        return found, np.full(len(found), self.target)
