"""Model replacement, and constrain-and-scale: the update is made so long that an average cannot dilute it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.federated.attacks.sight import Hooks, Sight
from ostiary.federated.verdict import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReplacement:
    """The update times `scale`; with scale = clients / (learning rate of the server) it replaces the global model.

    Source: Bagdasaryan, Veit, Hua, Estrin, Shmatikov 2020, How to backdoor federated learning (AISTATS; arXiv
    1807.00459), eq. 3. Of several attackers each needs its part of that alone.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.model-replacement",
        summary="sends its update several times as long",
        paper="Bagdasaryan et al. 2020, AISTATS, arXiv 1807.00459",
        needs=Needs(),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    scale: Annotated[float, Field(gt=1)] = 5.0

    def arm(self, sight: Sight, /) -> Hooks:
        """Scale the update."""
        return Hooks(finish=lambda update: self.scale * update)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstrainAndScale:
    """Training stays near the global model by a penalty; then the update is scaled.

    Source: Bagdasaryan et al. 2020, sec. 3.3: loss = alpha L_class + (1 - alpha) L_anomaly, here with the squared
    distance to the global model as the anomaly.
    """

    card: ClassVar[Card] = Card(
        id="client-attack.constrain-and-scale",
        summary="penalises the distance to the global model while it trains, then scales its update",
        paper="Bagdasaryan et al. 2020, AISTATS, arXiv 1807.00459",
        needs=Needs(),
        cost="nothing",
        marks=frozenset({"mechanism"}),
    )

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.7
    scale: Annotated[float, Field(ge=1)] = 5.0

    def arm(self, sight: Sight, /) -> Hooks:
        """Penalise and scale."""

        def change(weights: Array, gradient: Array) -> Array:
            return self.alpha * gradient + (1 - self.alpha) * 2 * (weights - sight.weights)

        return Hooks(change=change, finish=lambda update: self.scale * update)
