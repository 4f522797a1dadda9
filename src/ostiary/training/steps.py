"""What may be learnt from a batch instead of the batch: the steps that hardenings and hard-benign models share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.perturb.pgd import pgd
from ostiary.training.loop import Recipe, Step, autocast, plain_step

Mix = Callable[[Images, Tensor, float], tuple[Images, float]]
"""Mixes a batch with its rows in another order, given the weight that was drawn; gives the weight of the first, too."""


def adversarial_step(
    recipe: Recipe, device: torch.device, *, eps: float, length: float, steps: int, rng: torch.Generator
) -> Step:
    """Learns adversarial examples of the model as it stands: `steps` of `length` from a random start within `eps`.

    Madry et al. 2018, eq. 2.1; with one step of 1.25 `eps` Wong, Rice, Kolter 2020, alg. 3.
    """
    learn = plain_step(recipe, device)

    def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, recipe.precision):
            x = pgd(model, x, y, eps=eps, step=length, steps=steps, rng=rng)
        return learn(model, x, y)

    return step


def mixture_step(recipe: Recipe, device: torch.device, *, mix: Mix, alpha: float, rng: torch.Generator) -> Step:
    """Learns mixtures of images and, in equal shares, of their labels; one weight per batch from Beta(alpha, alpha).

    The right predictions it tells are those of the mixed labels.
    """
    # torch draws no Beta from a generator of its own.
    weights = np.random.default_rng(rng.initial_seed())

    def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        weight = float(weights.beta(alpha, alpha))
        other = torch.randperm(len(y), generator=rng).to(y.device)
        mixed, weight = mix(x, x[other], weight)
        with autocast(device, recipe.precision):
            logits = model.logits(mixed).float()
        losses = [cross_entropy(logits, to, label_smoothing=recipe.label_smoothing) for to in (y, y[other])]
        loss = weight * losses[0] + (1 - weight) * losses[1]
        loss.backward()
        predicted = logits.argmax(1)
        hits = weight * (predicted == y).sum() + (1 - weight) * (predicted == y[other]).sum()
        return loss.detach(), hits

    return step


def weighted_mean(x: Images, other: Images, weight: float) -> tuple[Images, float]:
    """The mixture of mixup: Zhang, Cisse, Dauphin, Lopez-Paz 2018, sec. 2."""
    return weight * x + (1 - weight) * other, weight


def pasted_box(rng: torch.Generator) -> Mix:
    """The mixture of CutMix: a box of the other images, of 1 - weight of the area, at a random place.

    Yun et al. 2019, sec. 3.1: the sides are sqrt(1 - weight) of the image's, the centre is uniform, what lies outside
    is cut off, and the weight becomes the share of the area that is left.
    """

    def mix(x: Images, other: Images, weight: float) -> tuple[Images, float]:
        height, width = x.shape[-2:]
        at = torch.rand(2, generator=rng).tolist()
        spans = []
        for side, centre in zip((height, width), at, strict=True):
            half = side * (1 - weight) ** 0.5 / 2
            spans.append(slice(max(0, round(centre * side - half)), min(side, round(centre * side + half))))
        mixed = x.clone()
        mixed[:, :, spans[0], spans[1]] = other[:, :, spans[0], spans[1]]
        area = (spans[0].stop - spans[0].start) * (spans[1].stop - spans[1].start)
        return mixed, 1 - area / (height * width)

    return mix
