"""LoRA: a few weights beside those of a language model learn, and the model itself stays as it is."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ConfigError
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.adapter import Adapter
from ostiary.models.language import LanguageModel
from ostiary.models.tokens import linear_layers
from ostiary.training.language import LanguageRecipe, fit, token_rows

SCALE = 2.0
"""What the product counts: alpha over the rank."""


class _Added(nn.Module):
    """A weight and the product of two small matrices."""

    def __init__(self, weight: Tensor, rank: int, scale: float, *, turned: bool, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.T.shape if turned else weight.shape
        self.scale, self.turned = scale, turned
        bound = 1 / math.sqrt(columns)  # that of nn.Linear
        start = (2 * torch.rand(rank, columns, generator=generator) - 1) * bound
        self.down = nn.Parameter(start.to(weight))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the network sees it."""
        change = self.scale * (self.up @ self.down)
        return weight + (change.T if self.turned else change)


@dataclass(frozen=True, slots=True)
class AdapterTraining:
    """Training of a LoRA adapter with one recipe, as a method that `execute` can run."""

    card: ClassVar[Card] = Card(
        id="text.training.train-adapter",
        summary="AdamW under a OneCycle schedule, of LoRA matrices alone",
        paper="Hu et al. 2022, ICLR, arXiv 2106.09685",
        needs=Needs(modality="text", training_data=True),
        cost="steps x batch forward and backward passes",
    )

    recipe: LanguageRecipe
    rank: Annotated[int, Field(ge=1)] = 8

    def train(self, base: LanguageModel, data: TextSet, name: str, /, *, run: Run) -> tuple[Adapter, tuple[float, ...]]:
        """An adapter of `base`, and the mean loss of every tenth of the steps."""
        return train_adapter(base, data, self.recipe, rank=self.rank, name=name, run=run)


def train_adapter(
    base: LanguageModel,
    data: TextSet,
    recipe: LanguageRecipe,
    *,
    rank: int = 8,
    name: str = "adapter",
    run: Run,
) -> tuple[Adapter, tuple[float, ...]]:
    """A LoRA adapter of `base`, which is untouched, and the mean loss of every tenth of the steps.

    Source: Hu et al. 2022, LoRA (ICLR), sec. 4.1: A begins at random and B at zero. All linear layers but the one that
    gives the logits have one. Raises DataError for a set without answers, ConfigError for a rank above the smallest
    layer's width, OutOfTime.
    """
    module = base.clone().module.requires_grad_(requires_grad=False)
    last = module.get_output_embeddings()  # type: ignore[operator]
    layers = [(where, layer) for where, layer in linear_layers(module) if layer is not last]
    smallest = min(min(layer.weight.shape) for _, layer in layers)
    if not 1 <= rank <= smallest:
        raise ConfigError(f"an adapter of '{base.name}' has a rank from 1 to {smallest}, not {rank}")
    generator, turned = run.generator("adapter"), not isinstance(layers[0][1], nn.Linear)
    added: dict[str, _Added] = {}
    for where, layer in layers:
        added[where] = _Added(layer.weight, rank, SCALE, turned=turned, generator=generator)
        parametrize.register_parametrization(layer, "weight", added[where])
    model = base.with_module(module)
    weights = [weight for one in added.values() for weight in (one.down, one.up)]
    losses = fit(model, weights, token_rows(model, data), recipe, run=run)
    pairs = {where: (one.down.detach(), one.up.detach()) for where, one in added.items()}
    return Adapter(name, SCALE, pairs, turned), losses
