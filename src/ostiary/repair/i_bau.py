"""I-BAU: unlearn the perturbation that turns most images, with the gradient of how it follows the weights."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.tune import BestState, Tuning, batches_for

BATCH = 100
RADIUS = 10.0
"""The longest perturbation, as its Euclidean length over all pixels in [0, 1]."""
STEP = 0.1
"""The rate of the inner step whose dependence on the weights is followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IBau:
    """Alternate: a universal perturbation climbs the loss; the weights descend it, knowing how the climb follows them.

    Source: Zeng, Chen, Park, Mao, Jin, Jia 2022, Adversarial Unlearning of Backdoors via Implicit Hypergradient (ICLR;
    arXiv 2110.03735), sec. 4: min over weights, max over delta within a ball of the mean loss of x + delta; the inner
    problem is climbed by gradient steps, and the outer gradient is dL/dw + (d delta/dw)^T dL/d delta, where the second
    part comes from a few fixed-point iterations of the inner step. Nothing is selected. Perturbed images are not
    clipped to [0, 1].

    Raises ModelError when the loss diverges in the first round.
    """

    card: ClassVar[Card] = Card(
        id="repair.i-bau",
        summary="unlearns the perturbation that turns most images, as it follows the weights",
        paper="Zeng et al. 2022, ICLR, arXiv 2110.03735",
        official_code="https://github.com/YiZeng623/I-BAU",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="rounds of passes for the perturbation and of eight passes for the weights over the trusted images",
        deviations=(
            (
                "the weights see the perturbation on 2 % of the images (public code: 1 %), not on all: with half "
                "of them accuracy fell by 14 to 30 points"
            ),
        ),
        blind_spots=(
            "triggers that no perturbation added to all images resembles, as warps",
            "few trusted images: accuracy falls by 5 to 7 points with 500 on a small CNN (fine-tuning alone: 4)",
        ),
        marks=frozenset({"mechanism"}),
    )

    rounds: Annotated[int, Field(gt=0)] = 3
    inner_steps: Annotated[int, Field(gt=0)] = 20
    inner_lr: Annotated[float, Field(gt=0)] = 10.0
    outer_steps: Annotated[int, Field(gt=0)] = 10
    terms: Annotated[int, Field(ge=0)] = 5
    decay: Annotated[float, Field(ge=0)] = 0.001
    share: Annotated[float, Field(gt=0, le=1)] = 0.02
    lr: Annotated[float, Field(gt=0)] = 0.001

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give an unlearned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        weights: list[Tensor] = [w for w in copy.module.parameters() if w.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.lr)
        pixels, rng = load_uint8(trusted), run.generator(self.card.name)
        tuning, steps = Tuning(epochs=1, lr=self.lr, batch=BATCH), self.inner_steps + self.outer_steps
        best = BestState(copy, run, self.card.name)
        for number in range(self.rounds):
            batches = batches_for(pixels, trusted.labels, tuning, steps=steps, rng=rng, device=run.device)
            delta = torch.zeros(1, *copy.input_shape, device=run.device)
            for step, (x, y) in enumerate(batches, 1):
                if step <= self.inner_steps:
                    delta = self._climb(copy, delta, x, y)
                elif best.diverged(self._descend(copy, weights, optimizer, delta, x, y)):
                    return Repaired(copy)
                run.step(number * steps + step, self.rounds * steps, self.card.name)
            best.end_round()
        return Repaired(copy)

    def _inner(self, model: TorchClassifier, delta: Tensor, x: Images, y: Labels) -> Tensor:
        """What the perturbation minimises."""
        return self.decay * delta.square().sum() - cross_entropy(model.logits(x + delta), y)

    def _climb(self, model: TorchClassifier, delta: Tensor, x: Images, y: Labels) -> Tensor:
        """The universal perturbation [1, c, h, w] after one more step up the loss, within its ball."""
        delta = delta.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._inner(model, delta, x, y), delta)
        moved = delta.detach() - self.inner_lr * slope
        inside: Tensor = moved * (RADIUS / moved.norm().clamp(min=RADIUS))
        return inside

    def _descend(
        self,
        model: TorchClassifier,
        weights: list[Tensor],
        optimizer: torch.optim.Optimizer,
        delta: Tensor,
        x: Images,
        y: Labels,
    ) -> Tensor:
        """One step of the weights on images with the perturbation, its dependence on them included; gives the loss."""
        delta = delta.detach().requires_grad_()
        shown = (torch.arange(len(x), device=x.device) < self.share * len(x)).view(-1, 1, 1, 1)
        outer = cross_entropy(model.logits(x + delta * shown), y)
        direct = torch.autograd.grad(outer, [*weights, delta], allow_unused=True)
        (slope,) = torch.autograd.grad(self._inner(model, delta, x, y), delta, create_graph=True)
        moved = delta - STEP * slope
        # v = (I - d moved / d delta)^-T times the slope of the outer loss, by its series.
        v = start = direct[-1]
        for _ in range(self.terms):
            (turned,) = torch.autograd.grad(moved, delta, v, retain_graph=True)
            v = start + turned
        implicit = torch.autograd.grad(moved, weights, v, allow_unused=True)
        optimizer.zero_grad(set_to_none=True)
        for weight, one, other in zip(weights, direct[:-1], implicit, strict=True):
            parts = [part for part in (one, other) if part is not None]
            weight.grad = sum(parts[1:], parts[0]) if parts else None
        optimizer.step()
        return outer.detach()
