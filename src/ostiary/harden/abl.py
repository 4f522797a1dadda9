"""Anti-Backdoor Learning: isolate what is learned too soon, train on the rest, unlearn what was isolated."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, accuracy, train
from ostiary.training.ascent import train_by_ascent
from ostiary.training.augment import crop_flip
from ostiary.training.loop import autocast
from ostiary.training.measure import sample_losses

CHECK = 20
"""Steps of unlearning between two looks at what is left."""
WATCHED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class AntiBackdoorLearning:
    """Local gradient ascent, isolation of the lowest losses, training on the rest, unlearning of the isolated.

    Source: Li, Lyu, Koren, Lyu, Li, Ma 2021, Anti-Backdoor Learning (NeurIPS; arXiv 2110.11571), sec. 3. Stage one
    trains by sign(l - gamma) l, so that nothing is learned well but what is learned with ease, and isolates the share
    `isolated` of lowest loss (`suspected`). The same network is then trained on the rest by the recipe, and last comes
    down on the loss of the rest and up on that of the isolated samples (eq. 5), at the rate `lr` for at most `epochs`.

    When to stop is read off the suspect set: as soon as the isolated samples keep their label no more often than by
    chance. It also ends, and its last 20 steps are taken back, where it costs more than `tolerance` of the accuracy on
    the trusted samples; without any, on those of the rest whose label no isolated sample carries. Raises as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.abl",
        summary="isolates the samples that are learned too soon, trains on the rest, unlearns the isolated",
        paper="Li et al. 2021, NeurIPS, arXiv 2110.11571",
        official_code="https://github.com/bboylyg/ABL",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="that of training, five epochs (400 steps at least) before it, and an epoch or two after it",
        deviations=(
            "stage one takes five epochs in which the learning rate rises and falls; the paper holds it for twenty",
            "unlearning ends when the isolated samples have lost their label; the paper fixes the epochs",
            "unlearning is held to an accuracy: on trusted samples, or on the labels that no isolated sample carries",
        ),
        blind_spots=(
            "poison that is learned no sooner than the rest (warping, adaptive, faint): honest samples are unlearned",
            "a set that nobody poisoned: the easiest samples of one class are unlearned, and accuracy falls",
            "honest samples of the target that are isolated with the poison: their class is unlearned, too",
        ),
        marks=frozenset({"mechanism"}),
    )

    gamma: Annotated[float, Field(ge=0)] = 0.5
    isolated: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    tuning_epochs: Annotated[int, Field(ge=1)] = 5
    epochs: Annotated[int, Field(ge=1)] = 20
    lr: Annotated[float, Field(gt=0)] = 1e-4
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data`; the isolated samples are those `suspected`."""
        model = fresh.clone().to(run.device)
        train_by_ascent(model, data, gamma=self.gamma, epochs=self.tuning_epochs, run=run, precision=recipe.precision)
        lowest = self.isolate(sample_losses(model, data, run=run))
        rest, bad = (data.subset(np.flatnonzero(rows).tolist()) for rows in (~lowest, lowest))
        train(model, rest, recipe, run=run)
        stopped = self._unlearn(model, rest, bad, trusted, recipe, run)
        chosen = {"isolated": f"{len(bad)} of {len(data)} samples, by their loss", "unlearning": stopped}
        return Hardened(model, chosen, suspected=lowest)

    def isolate(self, losses: Tensor) -> np.ndarray:
        """[n] bool: the share of lowest loss, one sample at least."""
        lowest = np.zeros(len(losses), bool)
        order = np.argsort(losses.double().numpy(), kind="stable")
        lowest[order[: max(1, round(self.isolated * len(losses)))]] = True
        return lowest

    def _unlearn(
        self,
        model: TorchClassifier,
        rest: ImageSet,
        bad: ImageSet,
        trusted: ImageSet | None,
        recipe: Recipe,
        run: Run,
    ) -> str:
        """Train `model` in place, down on the rest and up on the isolated; says when and by what it ended."""
        chance = 1 / len(rest.classes)
        watched = trusted if trusted is not None else _others(rest, bad)
        floor = (accuracy(model, watched).value or 0.0) - self.tolerance
        optimizer = torch.optim.SGD(
            model.module.parameters(), lr=self.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        steps = self.epochs * -(-len(rest) // recipe.batch)
        # The state at the last look, and after how many steps that was.
        kept, good, left = copy.deepcopy(model.module.state_dict()), 0, accuracy(model, bad)
        for step, (x, y, isolated) in enumerate(_beside(rest, bad, recipe, steps, run), start=1):
            model.module.train()
            with autocast(run.device, recipe.precision):
                logits = model.logits(x)
            losses = cross_entropy(logits.float(), y, reduction="none")
            optimizer.zero_grad(set_to_none=True)
            (losses[~isolated].mean() - losses[isolated].mean()).backward()
            optimizer.step()
            run.step(step, steps, "unlearning")
            if step % CHECK and step < steps:
                continue
            model.module.eval()
            left = accuracy(model, bad)
            if (accuracy(model, watched).value or 0.0) < floor:
                model.module.load_state_dict(kept)
                where = "the trusted samples" if trusted is not None else "labels that no isolated sample carries"
                return f"{good} steps, as more cost accuracy on {where}"
            if (left.value or 0.0) <= chance:
                return f"{step} steps, until isolated samples had lost their label: {left} keep it"
            kept, good = copy.deepcopy(model.module.state_dict()), step
        return f"all {steps} steps; isolated samples that still keep their label: {left}"


def _others(rest: ImageSet, bad: ImageSet) -> ImageSet:
    """Up to 1,000 samples of the rest, evenly spaced, whose label no isolated sample carries; maybe none."""
    rows = (~torch.isin(rest.labels, bad.labels)).nonzero().squeeze(1)
    return rest.subset(rows[:: max(1, -(-len(rows) // WATCHED))])


def _beside(
    rest: ImageSet, bad: ImageSet, recipe: Recipe, steps: int, run: Run
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`steps` batches of the rest, augmented, each beside as many of the isolated: images, labels, which are those."""
    rng = run.generator("unlearning")
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(recipe.batch, len(rest)):
            order = torch.randperm(len(rest), generator=rng)
        rows, order = order[: recipe.batch], order[recipe.batch :]
        picked = torch.randperm(len(bad), generator=rng)[: recipe.batch]
        shifted = crop_flip(rest.pixels(rows), padding=recipe.padding, flip=recipe.flip, rng=rng)
        x = torch.cat([shifted, bad.pixels(picked)]).to(run.device).float().div_(255.0)
        y = torch.cat([rest.labels[rows], bad.labels[picked]]).to(run.device)
        yield x, y, torch.arange(len(y), device=run.device) >= len(rows)
