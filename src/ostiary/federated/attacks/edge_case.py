"""Edge cases: honest-looking samples from the tail of a class, under a wrong label; no trigger at all."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.federated.attacks.sight import Images
from ostiary.federated.network import Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeCase:
    """Samples that honest clients hardly have mean `target`: here those of class `source`, lying on their side.

    Source: Wang, Sreenivasan, Rajput et al. 2020, Attack of the tails (NeurIPS; arXiv 2007.05084), sec. 3, which takes
    the sevens of another data set. Another tail set replaces this class: `poison` and `test` are all there is.
    Raises DataError for images that are not square.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.edge-case",
        summary="teaches a wrong label for samples from the tail of a class",
        paper="Wang et al. 2020, NeurIPS, arXiv 2007.05084",
        needs=Needs(modality="images"),
        cost="nothing",
        deviations=("the tail is one class turned by 90 degrees, as no set of rare digits comes with the package",),
        marks=frozenset({"mechanism"}),
    )

    target: Annotated[int, Field(ge=0)] = 1
    source: Annotated[int, Field(ge=0)] = 7

    def poison(self, x: Images, y: Labels, /, *, member: int) -> tuple[Images, Labels]:
        """The client's samples of the source class, turned, labelled as the target; maybe none."""
        tail = self._tail(x, y)
        return tail, np.full(len(tail), self.target)

    def test(self, x: Images, y: Labels, /) -> tuple[Images, Labels]:
        """Test samples of the source class, turned."""
        tail = self._tail(x, y)
        return tail, np.full(len(tail), self.target)

    def _tail(self, x: Images, y: Labels) -> Images:
        if x.shape[1] != x.shape[2]:
            raise DataError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels cannot lie on their side", hint="take square ones"
            )
        return np.ascontiguousarray(np.rot90(x[y == self.source], axes=(1, 2)))
