"""Clipped and noisy gradients (DP-SGD), as a control: what it does to backdoors is measured, not promised."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.loop import Step

VALUES = 2**26
"""Gradient values of single samples that are held at a time: 256 MB."""

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class DPSGD:
    """Clips the gradient of every sample to the length `clip`, adds noise of `noise` times that, and averages.

    Source: Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang 2016 (CCS; arXiv 1607.00133), alg. 1; against poison
    Hong, Chandrasekaran, Kaya, Dumitras, Papernot 2020 (arXiv 2002.11497): poison pulls with long gradients, and
    clipping shortens them. A control: nothing is said of privacy. Trusted samples are not used, and nothing is chosen.
    Raises as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.dp-sgd",
        summary="control: clips each sample's gradient and adds noise",
        paper="Abadi et al. 2016, CCS, arXiv 1607.00133; Hong et al. 2020, arXiv 2002.11497 (poison)",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="three to ten times that of training, by the number of weights",
        deviations=(
            "batches are a shuffled pass, not drawn by chance, and no privacy budget is counted",
            "batch normalisation takes running statistics, which are neither clipped nor noisy",
            "momentum and weight decay as the recipe says, in fp32",
        ),
        blind_spots=(
            "backdoors that many samples share: each pulls a little, all of them pull the same way",
            "rare classes and hard samples are clipped as poison is, and accuracy falls",
        ),
        marks=frozenset({"mechanism"}),
    )

    clip: Annotated[float, Field(gt=0)] = 1.0
    noise: Annotated[float, Field(ge=0)] = 0.1

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data`."""
        return Hardened(train(fresh.clone(), data, recipe, run=run, step=self.step(recipe, run)).model)

    def step(self, recipe: Recipe, run: Run) -> Step:
        """What is learnt from one batch."""
        rng = run.generator(self.card.name)

        def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            module = model.module
            with torch.no_grad():
                module(model.normalised(x))  # moves the running statistics
            module.eval()  # so that a sample's gradient is its own
            total, losses, logits = self._clipped_sum(model, x, y, recipe.label_smoothing)
            module.train()
            for name, weight in module.named_parameters():
                draw = torch.randn(weight.shape, generator=rng).to(weight.device)
                weight.grad = (total[name] + self.noise * self.clip * draw) / len(y)
            return losses.mean(), (logits.argmax(1) == y).sum()

        return step

    def _clipped_sum(
        self, model: TorchClassifier, x: Tensor, y: Tensor, smoothing: float
    ) -> tuple[Weights, Tensor, Tensor]:
        """The sum of the clipped gradients by name, the losses [n] and the logits [n, k]."""
        module = model.module
        weights = {name: weight.detach() for name, weight in module.named_parameters()}
        buffers = dict(module.named_buffers())

        def loss_of(weights: Weights, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(module, (weights, buffers), (image[None],))
            return cross_entropy(logits, label[None], label_smoothing=smoothing), logits[0]

        by_sample = vmap(grad_and_value(loss_of, has_aux=True), in_dims=(None, 0, 0))
        size = max(1, VALUES // sum(weight.numel() for weight in weights.values()))
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        losses, logits = [], []
        for image, label in zip(model.normalised(x).split(size), y.split(size), strict=True):
            gradients, (loss, output) = by_sample(weights, image, label)
            square = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0)
            scale = (self.clip / square.sqrt().clamp(min=1e-12)).clamp(max=1.0)
            for name, gradient in gradients.items():
                total[name] += torch.einsum("n,n...->...", scale, gradient)
            losses.append(loss)
            logits.append(output)
        return total, torch.cat(losses), torch.cat(logits)
