"""Universal perturbation: one change that moves the predictions of most images."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Classifier
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.perturb.gradient import Norm, input_gradient, project, steepest


@dataclass(frozen=True, kw_only=True, slots=True)
class UniversalPerturbation:
    """One perturbation of size `eps` for all images.

    The aim is that of Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, Universal adversarial
    perturbations (CVPR; arXiv 1610.08401); the algorithm that of Shafahi et al. 2020, Universal
    adversarial training (AAAI; arXiv 1811.11304), sec. 3: projected gradient steps on the shared
    perturbation, batch by batch, on a cross-entropy that stops counting at `most`, so that no image
    with a huge loss outweighs the others. `targeted` lowers the loss at the given labels instead and
    caps nothing. `eps` and `step` are changes per value, or Euclidean lengths in the norm `l2`.
    """

    card: ClassVar[Card] = Card(
        id="perturb.universal",
        summary="one perturbation for all images, by projected gradient steps",
        paper="Moosavi-Dezfooli et al. 2017, CVPR, arXiv 1610.08401; Shafahi et al. 2020, AAAI, arXiv 1811.11304",
        needs=Needs(access="gradients", modality="images"),
        cost="one forward and backward pass per image and epoch",
        marks=frozenset({"mechanism"}),
    )

    eps: Annotated[float, Field(gt=0)] = 10 / 255
    step: Annotated[float, Field(gt=0)] = 1 / 255
    epochs: Annotated[int, Field(gt=0)] = 5
    batch: Annotated[int, Field(gt=0)] = 128
    most: Annotated[float, Field(gt=0)] = 9.0
    norm: Norm = "linf"
    targeted: bool = False

    def find(self, model: Classifier[Images], x: Images, y: Labels, /, *, run: Run) -> Tensor:
        """The perturbation [c, h, w] for images `x` with labels `y` (targeted: with the labels wanted)."""
        rng = run.generator("universal")
        length, most = (-self.step, math.inf) if self.targeted else (self.step, self.most)
        delta = torch.zeros(x.shape[1:], dtype=x.dtype, device=run.device)
        for epoch in range(self.epochs):
            for rows in torch.randperm(len(x), generator=rng).to(x.device).split(self.batch):
                moved = x[rows].to(run.device) + delta
                gradient = input_gradient(model, moved.clamp(0, 1), y[rows.to(y.device)], most=most)
                # Where an image is black or white already, pushing further changes nothing.
                inside = (moved >= 0) & (moved <= 1)
                uphill = steepest((gradient * inside).sum(0), self.norm)
                delta = project(delta + length * uphill, self.eps, self.norm)
            run.step(epoch + 1, self.epochs, "universal perturbation")
        return delta.to(x.device)

    def perturb(self, model: Classifier[Images], x: Images, y: Labels, /, *, run: Run) -> Images:
        """Find the perturbation on these very images and add it to them."""
        return (x + self.find(model, x, y, run=run)).clamp(0, 1)
