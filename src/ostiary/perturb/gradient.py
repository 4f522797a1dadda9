"""What perturbations by gradient share: the gradient, steps and balls of a norm, work in batches."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.protocols import Classifier
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data.base import batch_size

Norm = Literal["linf", "l2"]
"""How the size of a perturbation is measured: the largest change of a value, or the Euclidean length per image."""


def input_gradient(model: Classifier[Images], x: Images, y: Labels, /, *, most: float = math.inf) -> Images:
    """Gradient of the summed cross-entropy at labels `y` with respect to the images.

    The weights of `model` get no gradients, and it is run in whatever mode it is in. An image whose
    loss lies above `most` counts no more.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model.logits(x).float()
        losses = cross_entropy(logits, y.to(logits.device), reduction="none")
        return torch.autograd.grad(losses.clamp(max=most).sum(), x)[0]


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of size 1 in which a loss of this gradient rises fastest, image by image; [..., c, h, w]."""
    if norm == "linf":
        return gradient.sign()
    return gradient / lengths(gradient).clamp(min=1e-12)


def project(delta: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest perturbation of size `eps` or less, image by image; [..., c, h, w]."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / lengths(delta).clamp(min=1e-12)).clamp(max=1.0)


def draw_in_ball(x: Images, eps: float, norm: Norm, *, rng: torch.Generator) -> Images:
    """Perturbations for `x`, uniform over those of size `eps` or less."""
    if norm == "linf":
        return ((2 * torch.rand(x.shape, generator=rng) - 1) * eps).to(x)
    direction = torch.randn(x.shape, generator=rng)
    radius = torch.rand(len(x), 1, 1, 1, generator=rng) ** (1 / x[0].numel()) if len(x) else 1.0
    return (steepest(direction, norm) * radius * eps).to(x)


def lengths(x: Tensor) -> Tensor:
    """Euclidean length of each image, [..., 1, 1, 1]."""
    found: Tensor = torch.linalg.vector_norm(x, dim=(-3, -2, -1), keepdim=True)
    return found


def in_batches(change: Callable[[Images, Labels], Images], x: Images, y: Labels, label: str, *, run: Run) -> Images:
    """Apply `change` to a bounded number of images at a time, on the run's device; tells `run` how far it is."""
    size, found = batch_size(x.shape[1:]), []
    for begin in range(0, len(x), size):
        part = x[begin : begin + size].to(run.device)
        found.append(change(part, y[begin : begin + size]).to(x))
        run.step(min(begin + size, len(x)), len(x), label)
    return torch.cat(found) if found else x.clone()
