"""Reconstructive Neuron Pruning: unlearn the task, relearn it by masks alone, and cut what relearning shuts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import load_uint8, split
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.channels import prune_while
from ostiary.repair.masks import Gate, Masks, gated, learn_masks
from ostiary.repair.tune import Tuning, batches_for

BATCH = 128
MOST = 20
"""The largest gradient, as the norm over all weights, by which unlearning moves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rnp:
    """Climb the loss of the trusted images, relearn them by masks of channels alone, and prune the lowest masks.

    Source: Li, Lyu, Ma, Koren, Lyu, Li, Jiang 2023, Reconstructive Neuron Pruning for Backdoor Defense (ICML; arXiv
    2305.14876), sec. 3: weights are unlearned by ascent on few trusted images until few of these are told right; then
    masks in [0, 1], one for each filter, descend while the weights stay. What the masks shut holds the backdoor: it is
    pruned in the model as it came. How many channels is chosen on half of the trusted images, which nothing else saw,
    by accuracy alone; public code takes the level of the lowest attack success on test data.

    Raises NotMet for fewer than four trusted images and for a model without a convolution, ModelError where a rate is
    so high that the unlearned model or the masks are no longer numbers.
    """

    card: ClassVar[Card] = Card(
        id="repair.rnp",
        summary="unlearns the task, relearns it by masks of channels alone, and prunes what the masks shut",
        paper="Li et al. 2023, ICML, arXiv 2305.14876",
        official_code="https://github.com/bboylyg/RNP",
        needs=Needs(access="gradients", modality="images", trusted_per_class=5),
        cost="epochs over the trusted images, twice; one pass for each level",
        deviations=(
            "the level is the largest that keeps accuracy on images kept apart, not a fixed mask",
            "masks count by their mean over the steps, which ranks those that end at 0; rate 0.02",
        ),
        blind_spots=(
            "backdoors that share channels with the task; narrow layers without channels to spare",
            "many attacks that are no patch: on a small CNN SIG stays at 99 %, FTrojan at 96 %",
            "networks that normalise before they convolve: one published WRN-16-1 stays at 98 %",
        ),
        marks=frozenset({"mechanism"}),
    )

    unlearn_steps: Annotated[int, Field(gt=0)] = 200
    unlearn_lr: Annotated[float, Field(gt=0)] = 0.01
    forgotten: Annotated[float, Field(gt=0, lt=1)] = 0.2
    steps: Annotated[int, Field(gt=0)] = 80
    lr: Annotated[float, Field(gt=0)] = 0.02
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
        self._unlearn(copy, learn, run)
        backward = partial(self._backward, copy)
        masks = learn_masks(
            copy, learn, backward, steps=self.steps, lr=self.lr, batch=BATCH, run=run, label="relearning"
        )
        for tolerance in tolerances:
            pruned, chosen = prune_while(model.clone().to(run.device), masks, choose, tolerance, run=run)
            yield Repaired(pruned, {"pruned": chosen})

    def _unlearn(self, model: TorchClassifier, data: LabelledSet[Images], run: Run) -> None:
        """Climb until the running share of images told right falls to `forgotten`, or the steps are spent."""
        module = model.module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=self.unlearn_lr, momentum=0.9)
        tuning, rng = Tuning(epochs=1, lr=self.unlearn_lr, batch=BATCH), run.generator("unlearning")
        pixels, kept = load_uint8(data), 1.0
        batches = batches_for(pixels, data.labels, tuning, steps=self.unlearn_steps, rng=rng, device=run.device)
        for step, (x, y) in enumerate(batches, 1):
            logits = model.logits(x)
            if not logits.isfinite().all():
                raise ModelError(f"unlearning is not finite in step {step}", hint="set a lower rnp.unlearn_lr")
            kept = 0.8 * kept + 0.2 * float((logits.argmax(1) == y).float().mean())
            if kept <= self.forgotten:
                break
            optimizer.zero_grad()
            (-cross_entropy(logits, y)).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), MOST)
            optimizer.step()
            run.step(step, self.unlearn_steps, "unlearning")
        module.eval()

    def _backward(self, model: TorchClassifier, masks: Masks, x: Images, y: Labels) -> None:
        with gated(model, {name: Gate(mask) for name, mask in masks.items()}):
            cross_entropy(model.logits(x), y).backward()
