"""Adversarial Neuron Pruning: cut the channels that a small change of their weights turns against the task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import split
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.channels import prune_while
from ostiary.repair.masks import Gate, Masks, gated, learn_masks

BATCH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Anp:
    """Weigh every channel by a mask that must keep the task under the worst small change of weights; cut the lowest.

    Source: Wu, Wang 2021, Adversarial Neuron Pruning Purifies Backdoored Deep Models (NeurIPS; arXiv 2110.14430),
    sec. 4: masks m in [0, 1] of all channels minimise alpha L(m w, b) + (1 - alpha) L((m + delta) w, (1 + xi) b), with
    delta and xi in [-eps, eps] one signed step from a random start up the loss; eps 0.4, alpha 0.2, batches of 128.
    Channels are then pruned from the lowest mask on: their weights are 0, their biases stay. How many is chosen on
    half of the trusted images, which the masks did not see, by accuracy alone; public code takes the level of the
    lowest attack success on test data.

    Raises NotMet for fewer than four trusted images and for a model without a convolution, ModelError for masks that
    are no longer numbers.
    """

    card: ClassVar[Card] = Card(
        id="repair.anp",
        summary="prunes the channels that a small change of their weights turns against the task",
        paper="Wu, Wang 2021, NeurIPS, arXiv 2110.14430",
        official_code="https://github.com/csdongxian/ANP_backdoor",
        needs=Needs(access="gradients", modality="images", trusted_per_class=5),
        cost="three passes a step over batches of the trusted images, one pass for each level",
        deviations=(
            "100 steps instead of 2000, and masks count by their mean over the steps, which ranks those that end at 0",
            "the level is the largest that keeps accuracy on images kept apart, not a fixed mask of 0.2",
            "convolutions without a batch normalisation after them are masked, too",
        ),
        blind_spots=(
            "backdoors that share channels with the task; narrow layers without channels to spare",
            "clean-label attacks: SIG stays at 97 % on a small CNN",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(gt=0)] = 100
    lr: Annotated[float, Field(gt=0)] = 0.2
    eps: Annotated[float, Field(ge=0, lt=1)] = 0.4
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.2
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a pruned copy; `evidence` is not used."""
        return next(self.at(model, trusted, (self.tolerance,), run=run))

    def at(
        self, model: TorchClassifier, trusted: LabelledSet[Images], tolerances: Sequence[float], *, run: Run
    ) -> Iterator[Repaired]:
        """A pruned copy for each tolerance, of masks that are learned once."""
        learn, choose = split(trusted, (0.5, 0.5), seed=run.seed)
        copy = model.clone().to(run.device)
        backward = partial(self._backward, copy, run.generator("starts"))
        masks = learn_masks(
            copy, learn, backward, steps=self.steps, lr=self.lr, batch=BATCH, run=run, label=self.card.name
        )
        for tolerance in tolerances:
            pruned, chosen = prune_while(model.clone().to(run.device), masks, choose, tolerance, run=run)
            yield Repaired(pruned, {"pruned": chosen})

    def _backward(self, model: TorchClassifier, rng: torch.Generator, masks: Masks, x: Images, y: Labels) -> None:
        worst = self._worst(model, masks, x, y, rng)
        with gated(model, {name: Gate(mask) for name, mask in masks.items()}):
            (self.alpha * cross_entropy(model.logits(x), y)).backward()
        with gated(model, {name: Gate(mask + worst[name].scale, worst[name].shift) for name, mask in masks.items()}):
            ((1 - self.alpha) * cross_entropy(model.logits(x), y)).backward()

    def _worst(
        self, model: TorchClassifier, masks: Masks, x: Images, y: Labels, rng: torch.Generator
    ) -> dict[str, Gate]:
        """Per layer what to add to the mask and to multiply the bias by: one signed step from a random start."""
        starts = {
            (name, part): ((2 * torch.rand(len(mask), generator=rng) - 1) * self.eps).to(mask.device).requires_grad_()
            for name, mask in masks.items()
            for part in ("scale", "shift")
        }
        gates = {
            name: Gate(mask.detach() + starts[name, "scale"], 1 + starts[name, "shift"]) for name, mask in masks.items()
        }
        with gated(model, gates):
            loss = cross_entropy(model.logits(x), y)
        slopes = torch.autograd.grad(loss, list(starts.values()), allow_unused=True)  # a layer may have no bias
        moved = {
            key: start.detach() if slope is None else start.detach() + self.eps * slope.sign()
            for (key, start), slope in zip(starts.items(), slopes, strict=True)
        }
        moved = {key: change.clamp(-self.eps, self.eps) for key, change in moved.items()}
        return {name: Gate(moved[name, "scale"], 1 + moved[name, "shift"]) for name in masks}
