"""Fine-Pruning: cut the channels that trusted images leave dormant, then fine-tune."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size, load_uint8, split
from ostiary.models.classifier import TorchClassifier, last_conv_name
from ostiary.models.fuse import norm_names_after
from ostiary.repair.channels import silence
from ostiary.repair.tune import Tuning, fine_tune
from ostiary.training import accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class FinePruning:
    """Prune the last convolution's least active channels while trusted accuracy holds, then fine-tune.

    Source: Liu, Dolan-Gavitt, Garg 2018, Fine-Pruning (RAID), sec. 4: channels in ascending order of
    mean activation on valid data, stop before accuracy falls by more than a threshold (4 points in
    the paper), then fine-tune. How far to prune is chosen on a fifth of the trusted images that are
    not used for ranking or tuning.
    """

    card: ClassVar[Card] = Card(
        id="repair.fine-pruning",
        summary="prunes channels that trusted images leave dormant, then fine-tunes",
        paper="Liu, Dolan-Gavitt, Garg 2018, RAID, arXiv 1805.12185",
        official_code="https://github.com/kangliucn/Fine-pruning-defense",
        needs=Needs(access="gradients", modality="images", trusted_per_class=5),
        cost="one pass to rank, one per pruning step, epochs over the trusted images",
        deviations=("channels are pruned in steps of a twentieth",),
        blind_spots=("backdoors that share channels with the task", "narrow layers without dormant channels"),
        marks=frozenset({"mechanism"}),
    )

    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.04
    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 0.01

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a pruned and tuned copy; `evidence` is not used."""
        tune, choose = split(trusted, (0.8, 0.2), seed=run.seed)
        copy = model.clone().to(run.device)
        layer = _last_layer(copy)
        order = _mean_activation(copy, layer, tune, run).argsort()
        pruned = self._choose(copy, layer, order, choose)
        zero = _prune(copy, layer, order[:pruned])
        tuning = Tuning(epochs=self.epochs, lr=self.lr)
        fine_tune(copy, load_uint8(tune), tune.labels, tuning, run=run, label=self.card.name, after_step=zero)
        selected = f"{pruned} of {len(order)} channels of '{layer[0]}', on {len(choose)} trusted images kept apart"
        return Repaired(copy, {"pruned": selected})

    def _choose(
        self, model: TorchClassifier, layer: tuple[str, str | None], order: Tensor, choose: LabelledSet[Images]
    ) -> int:
        """The largest number of channels whose pruning keeps accuracy on `choose` within the tolerance."""
        floor = (accuracy(model, choose).value or 0.0) - self.tolerance
        best = 0
        step = max(1, len(order) // 20)
        for count in range(step, len(order), step):
            trial = model.clone()
            _prune(trial, layer, order[:count])
            if (accuracy(trial, choose).value or 0.0) < floor:
                break
            best = count
        return best


def _last_layer(model: TorchClassifier) -> tuple[str, str | None]:
    """The last convolution called, and the batch normalisation that takes its output, if any."""
    name = last_conv_name(model)
    return name, norm_names_after(model).get(name)


def _mean_activation(
    model: TorchClassifier, layer: tuple[str, str | None], data: LabelledSet[Images], run: Run
) -> Tensor:
    """Mean rectified output of each channel of the layer over `data`."""
    name = layer[1] or layer[0]
    total = torch.zeros(())
    with torch.no_grad():
        for x, _ in data.batches(batch_size(model.input_shape)):
            total = total + model.activations(x.to(run.device), [name])[name].relu().sum((0, 2, 3)).cpu()
    return total / len(data)


def _prune(model: TorchClassifier, layer: tuple[str, str | None], channels: Tensor) -> Callable[[], None]:
    """Silence channels of the layer for good; gives a function that keeps them silent while training."""
    chosen = [(name, channel) for name in layer if name is not None for channel in channels.tolist()]
    zero = partial(silence, model, chosen, bias=True)
    zero()
    return zero
