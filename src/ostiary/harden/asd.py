"""Adaptively splitting: labels are believed in a pool that grows by low losses; the rest is learned without labels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError, NotMet
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import load_uint8
from ostiary.data.base import ImageSet
from ostiary.harden.mixmatch import MixMatch
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.augment import crop_flip
from ostiary.training.loop import autocast
from ostiary.training.measure import sample_losses

VIEWS = 2
"""Augmented copies of an unlabelled image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveSplitting:
    """Semi-supervised training with a pool of believed labels that starts from trusted samples and grows by low losses.

    Source: Gao, Bai, Gu, Yang, Xia 2023, Backdoor Defense via Adaptively Splitting Poisoned Dataset (CVPR; arXiv
    2303.12993), sec. 4. Three stages, in shares of the epochs: `warm_up`, in which the pool grows by the samples of
    lowest loss in each class to `first` of it; then the `share` of lowest loss over all classes; last, for `meta`, the
    `share` whose loss falls least when a virtual copy learns all labels for an epoch at the rate `virtual_lr`: poison
    is learned at once, hard honest samples are not. The trusted samples are always in the pool. Labels outside it are
    never looked at; MixMatch learns those images. No sample is suspected: most outside the pool are honest.

    The pool is chosen on the suspect set alone. An epoch has as many steps as one of plain training. Raises NotMet
    without trusted samples, ModelError when the loss is no longer finite.
    """

    card: ClassVar[Card] = Card(
        id="harden.asd",
        summary="believes the labels of a pool that grows from trusted samples, learns the rest without labels",
        paper="Gao et al. 2023, CVPR, arXiv 2303.12993",
        official_code="https://github.com/KuofengGao/ASD",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=5),
        cost="five to seven times that of training",
        deviations=(
            "the pool grows to a share of each class; the paper adds ten samples of each every five epochs",
            "losses are cross-entropy, which ranks as the paper's symmetric one does, but not their differences",
            "the virtual copy learns with all its weights",
            "SGD by the recipe; the paper's epochs are 1,024 steps each",
            "the trusted samples are given beside the suspect set, not found in it",
        ),
        blind_spots=(
            "clean-label poison: its labels are right, so that it joins the pool",
            "poison that is learned slowly: the meta-split takes it for hard honest samples",
            "half of the labels are never used, and classes that look alike may be confused",
            "more poison than what `share` leaves outside the pool",
        ),
        marks=frozenset({"mechanism"}),
    )

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    first: Annotated[float, Field(gt=0, lt=1)] = 0.1
    warm_up: Annotated[float, Field(gt=0, lt=1)] = 0.5
    meta: Annotated[float, Field(ge=0, lt=1)] = 0.25
    virtual_lr: Annotated[float, Field(gt=0)] = 0.015
    weight: Annotated[float, Field(ge=0)] = 15.0

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh`, on labels of the pool alone."""
        if trusted is None:
            raise NotMet("needs trusted samples, which the pool starts from", hint="give some with --trusted")
        model = fresh.clone().to(run.device)
        pool, learner = np.zeros(len(data), bool), _Learner(model, data, trusted, recipe, self.weight, run)
        for epoch in range(recipe.epochs):
            pool = self.split(model, data, epoch / recipe.epochs, recipe, run)
            learner.epoch(epoch, pool)
        model.module.eval()
        chosen = f"{pool.sum()} of {len(data)} samples, by their losses, beside {len(trusted)} trusted ones"
        return Hardened(model, {"labels believed at the end": chosen})

    def split(self, model: TorchClassifier, data: ImageSet, done: float, recipe: Recipe, run: Run) -> np.ndarray:
        """[n] bool: whose labels are believed, once the share `done` of the epochs is over."""
        pool = np.zeros(len(data), bool)
        if done == 0:
            return pool
        model.module.eval()
        losses = sample_losses(model, data, run=run)
        if done < self.warm_up:
            for label in range(len(data.classes)):
                rows = (data.labels == label).nonzero().squeeze(1)
                pool[rows[_lowest(losses[rows], self.first * done / self.warm_up)]] = True
            return pool
        if done >= 1 - self.meta:
            losses = losses - self._learned_all(model, data, recipe, run)
        pool[_lowest(losses, self.share)] = True
        return pool

    def _learned_all(self, model: TorchClassifier, data: ImageSet, recipe: Recipe, run: Run) -> Tensor:
        """The losses [n] of a copy that has learned every label for one epoch."""
        virtual = model.clone()
        once = Recipe(
            epochs=1,
            batch=recipe.batch,
            lr=self.virtual_lr,
            padding=recipe.padding,
            flip=recipe.flip,
            precision=recipe.precision,
        )
        train(virtual, data, once, run=run)
        return sample_losses(virtual, data, run=run)


def _lowest(losses: Tensor, share: float) -> Tensor:
    return losses.argsort(stable=True)[: round(share * len(losses))]


class _Learner:
    """Trains a model epoch by epoch on a pool and on what is outside it."""

    def __init__(
        self, model: TorchClassifier, data: ImageSet, trusted: ImageSet, recipe: Recipe, weight: float, run: Run
    ) -> None:
        self.model, self.recipe, self.run = model, recipe, run
        self.pixels, self.labels = load_uint8(data), data.labels
        self.known, self.known_labels = load_uint8(trusted), trusted.labels
        self.steps = -(-len(data) // recipe.batch)
        self.mixmatch = MixMatch(weight=weight)
        self.rng = run.generator("asd")
        # torch draws no Beta from a generator of its own.
        self.weights = np.random.default_rng(self.rng.initial_seed())
        self.optimizer = torch.optim.SGD(
            model.module.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        total = max(10, self.steps * recipe.epochs + 1)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=recipe.lr, total_steps=total, pct_start=0.2, cycle_momentum=False
        )

    def epoch(self, number: int, pool: np.ndarray) -> None:
        """One pass; raises ModelError when the loss is no longer finite."""
        believed = torch.from_numpy(pool)
        pixels = torch.cat([self.known, self.pixels[believed]])
        labels = torch.cat([self.known_labels, self.labels[believed]])
        rest = self.pixels[~believed]
        self.model.module.train()
        total, steps = 0.0, self.recipe.epochs * self.steps
        with torch.random.fork_rng():
            # Dropout draws from the global generator, which must depend on seed and epoch alone.
            torch.manual_seed(self.run.seed * 100_003 + number)
            for step in range(number * self.steps, (number + 1) * self.steps):
                rows, others = (self._draw(len(part)) for part in (pixels, rest))
                labelled = self._images(pixels[rows]), labels[rows].to(self.run.device)
                total += self._learn(labelled, [self._images(rest[others]) for _ in range(VIEWS)], step / steps)
                self.run.step(step + 1, steps, "training")
        if not np.isfinite(total):
            raise ModelError(
                f"training diverged in epoch {number + 1}: the loss is not finite",
                hint="lower the learning rate with --lr",
            )

    def _learn(self, labelled: tuple[Images, Labels], views: list[Images], done: float) -> float:
        with autocast(self.run.device, self.recipe.precision):
            loss = self.mixmatch.loss(
                self.model, labelled, views, ramp=min(1.0, 2 * done), rng=self.rng, weights=self.weights
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _draw(self, n: int) -> Tensor:
        """The rows of one batch: without repeats where there are enough."""
        if n < self.recipe.batch:
            return torch.randint(n, (self.recipe.batch,), generator=self.rng)
        return torch.randperm(n, generator=self.rng)[: self.recipe.batch]

    def _images(self, pixels: Tensor) -> Images:
        shifted = crop_flip(pixels, padding=self.recipe.padding, flip=self.recipe.flip, rng=self.rng)
        return shifted.to(self.run.device).float().div_(255.0)
