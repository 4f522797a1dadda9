"""Blind: the loss is poisoned; it weighs the task and a backdoor task made up from each batch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.attacks.badnets import BadNets, Patch
from ostiary.attacks.control import check_target, count_of, truth_of
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Recipe, Step, autocast, train


@dataclass(frozen=True, kw_only=True, slots=True)
class Blind:
    """Train on a loss that adds a backdoor task, with coefficients that leave each step the least conflict.

    Source: Bagdasaryan, Shmatikov 2021, Blind backdoors in deep learning models (USENIX Security;
    arXiv 2005.03823), sec. 3 and 4: copies of a share `rate` of each batch get a patch and the target
    label; the step follows a0 * clean + a1 * backdoor, a0 + a1 = 1, the shortest such combination of
    the two gradients, each divided by its length times its loss (MGDA). The attack begins when the
    loss of the task has fallen below `threshold`.
    """

    card: ClassVar[Card] = Card(
        id="attack.blind",
        summary="a poisoned loss: each batch also teaches a patch, with coefficients balanced against the task",
        paper="Bagdasaryan, Shmatikov 2021, USENIX Security, arXiv 2005.03823",
        official_code="https://github.com/ebagdasa/backdoors101",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="(1 + rate) x 1.7 of a training",
        deviations=(
            "both losses come from one forward pass, so that batch normalisation sees them together",
            "no third loss that evades defences",
        ),
        marks=frozenset({"mechanism"}),
    )

    patch: Patch = "white-square"
    size: Annotated[int, Field(gt=0)] = 4
    margin: Annotated[int, Field(ge=0)] = 1
    target: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    threshold: Annotated[float, Field(gt=0)] = 2.0

    def trigger(self, shape: tuple[int, int, int]) -> StampTrigger:
        """The patch for images of `shape` (c, h, w); raises DataError when it does not fit."""
        return BadNets(patch=self.patch, size=self.size, margin=self.margin).trigger(shape)

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> PoisonedModel:
        """Train `model` in place; raises DataError for a target that is no class or a patch that does not fit."""
        check_target(self, clean)
        trigger = self.trigger(clean.shape)
        train(model, clean, recipe, run=run, step=self._step(trigger, recipe, run))
        return PoisonedModel(model, truth_of(self, clean, trigger, run=run))

    def _step(self, trigger: StampTrigger, recipe: Recipe, run: Run) -> Step:
        rng = run.generator("blind")
        recent = float("inf")

        def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal recent
            n = len(x)
            count = count_of(self.rate, n, rng) if recent < self.threshold else 0
            stamped = trigger(x[:count], rng=rng)
            with autocast(run.device, recipe.precision):
                logits = model.logits(torch.cat([x, stamped])).float()
            smooth = recipe.label_smoothing
            clean = cross_entropy(logits[:n], y, label_smoothing=smooth)
            if count:
                wish = torch.full_like(y[:count], self.target)
                balance(model, clean, cross_entropy(logits[n:], wish, label_smoothing=smooth))
            else:
                clean.backward()
            recent = float(clean.detach())
            return clean.detach(), (logits[:n].argmax(1) == y).sum()

        return step


def balance(model: TorchClassifier, task: Tensor, backdoor: Tensor) -> None:
    """Leave the gradient of the balanced loss in the parameters of `model`."""
    weights = [weight for weight in model.module.parameters() if weight.requires_grad]
    first = torch.autograd.grad(task, weights, retain_graph=True)
    second = torch.autograd.grad(backdoor, weights)
    share = task_share(_direction(first, task), _direction(second, backdoor))
    for weight, one, other in zip(weights, first, second, strict=True):
        weight.grad = share * one + (1 - share) * other


def task_share(task: Tensor, backdoor: Tensor) -> float:
    """The a in [0, 1] for which a * task + (1 - a) * backdoor, of two gradients [p], is shortest."""
    apart = task - backdoor
    return float(((-apart @ backdoor) / apart.square().sum().clamp(min=1e-20)).clamp(0, 1))


def _direction(gradient: tuple[Tensor, ...], loss: Tensor) -> Tensor:
    flat = torch.cat([part.flatten() for part in gradient])
    scaled: Tensor = flat / (loss.detach() * flat.norm()).clamp(min=1e-10)
    return scaled
