"""PGD: every step of the attacker's training is brought back to where honest updates end."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Hooks, Sight
from ostiary.federated.verdict import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class PGD:
    """The update is never longer than `room` times what the attackers' own honest updates are.

    Source: Wang et al. 2020, Attack of the tails (NeurIPS; arXiv 2007.05084), sec. 3, "PGD attack"; they project now
    and then, here after each step.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.pgd",
        summary="keeps its update as short as honest ones, step by step",
        paper="Wang et al. 2020, NeurIPS, arXiv 2007.05084",
        needs=Needs(),
        cost="the attackers train once more, honestly",
        marks=frozenset({"mechanism"}),
    )

    room: Annotated[float, Field(gt=0)] = 1.0

    def arm(self, sight: Sight, /) -> Hooks:
        """Project to the ball around the global model."""
        radius = self.room * sight.radius

        def project(weights: Array) -> Array:
            update = weights - sight.weights
            length = float(np.linalg.norm(update))
            return weights if length <= radius else sight.weights + update * (radius / length)

        return Hooks(project=project)
