"""PGD: many small steps along the input gradient, kept within a ball around the image."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Classifier
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.perturb.gradient import Norm, draw_in_ball, in_batches, input_gradient, project, steepest


def pgd(
    model: Classifier[Images],
    x: Images,
    y: Labels,
    /,
    *,
    eps: float,
    step: float,
    steps: int,
    norm: Norm = "linf",
    targeted: bool = False,
    rng: torch.Generator | None = None,
) -> Images:
    """Images within `eps` of `x` and within [0, 1] at which the loss at labels `y` is high; `x` is not changed.

    Madry et al. 2018, sec. 2.1. With `rng` each image starts at a random place of the ball, else at
    itself. `targeted` lowers the loss instead: `y` are then the labels wanted. The last point is
    returned. With one step and a random start it is the one-step attack of Wong, Rice, Kolter 2020.
    """
    moved = x.clone() if rng is None else (x + draw_in_ball(x, eps, norm, rng=rng)).clamp(0, 1)
    length = -step if targeted else step
    for _ in range(steps):
        uphill = steepest(input_gradient(model, moved, y), norm)
        moved = (x + project(moved - x + length * uphill, eps, norm)).clamp(0, 1)
    return moved


@dataclass(frozen=True, kw_only=True, slots=True)
class PGD:
    """Adversarial examples by projected gradient steps from a random start.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu 2018, Towards deep learning models resistant to
    adversarial attacks (ICLR; arXiv 1706.06083), sec. 2.1; 20 steps of 2/255 within 8/255 as in its
    table 2. In the norm `l2`, `eps` and `step` are Euclidean lengths per image (0.5 is usual for 32x32
    colours). `targeted` moves towards the given labels instead of away from them. One start, no choice
    of the worst of several.
    """

    card: ClassVar[Card] = Card(
        id="perturb.pgd",
        summary="adversarial examples by projected gradient steps from a random start",
        paper="Madry et al. 2018, ICLR, arXiv 1706.06083",
        official_code="https://github.com/MadryLab/cifar10_challenge",
        needs=Needs(access="gradients", modality="images"),
        cost="one forward and backward pass per image and step",
        marks=frozenset({"mechanism"}),
    )

    eps: Annotated[float, Field(gt=0)] = 8 / 255
    step: Annotated[float, Field(gt=0)] = 2 / 255
    steps: Annotated[int, Field(gt=0)] = 20
    norm: Norm = "linf"
    random_start: bool = True
    targeted: bool = False

    def perturb(self, model: Classifier[Images], x: Images, y: Labels, /, *, run: Run) -> Images:
        """Perturb `x` away from its labels `y`, or towards the labels `y`."""
        rng = run.generator("pgd") if self.random_start else None

        def change(part: Images, labels: Labels) -> Images:
            return pgd(
                model,
                part,
                labels,
                eps=self.eps,
                step=self.step,
                steps=self.steps,
                norm=self.norm,
                targeted=self.targeted,
                rng=rng,
            )

        return in_batches(change, x, y, "PGD", run=run)
