"""Whether a model's answers and gradients can be searched at all, on a few images, before any method runs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ostiary.core.protocols import LabelledSet
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier

IMAGES = 16
SAME = 1e-6
"""Probabilities that lie no further apart are the same."""
STEADY = 1e-3
"""How far two answers to the same image may lie apart: rounding."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a few images told: cautions as (code, text), and whether gradients to the input lead anywhere."""

    cautions: tuple[tuple[str, str], ...]
    gradients: bool


def examine(model: TorchClassifier, trusted: LabelledSet[Images] | None) -> Health:
    """Ask `model` about trusted images, or random ones where there are none; raises nothing of its own."""
    x = _images(model, trusted).to(model.device)
    cautions = []
    with torch.random.fork_rng(devices=[]):
        first, again = model.predict(x), model.predict(x)
        reason = _gradient_fault(model, x)
    if bool((first - again).abs().max() > STEADY):
        cautions.append(("OS911", f"'{model.name}' answered the same images differently a second time"))
    if bool((first - first[:1]).abs().max() <= SAME):
        cautions.append(("OS913", f"'{model.name}' gives all of {len(x)} images the same probabilities"))
    if reason is not None:
        cautions.append(("OS912", f"gradients to the input are {reason}: methods that follow them are left out"))
    return Health(tuple(cautions), reason is None)


def _images(model: TorchClassifier, trusted: LabelledSet[Images] | None) -> Tensor:
    if trusted is None:
        return torch.rand(IMAGES, *model.input_shape, generator=torch.Generator().manual_seed(0))
    return trusted.take(torch.linspace(0, len(trusted) - 1, min(IMAGES, len(trusted))).long())


def _gradient_fault(model: TorchClassifier, x: Tensor) -> str | None:
    """What is wrong with the gradients of the margins of the images' own classes and of their neighbours; else None.

    A model that is sure of an image has next to no slope there, so that only gradients which are exactly zero for
    all images count.
    """
    x = x.clone().requires_grad_()
    try:
        logits = model.logits(x).float()
        (slope,) = torch.autograd.grad((logits.max(1).values - logits.mean(1)).sum(), x)
    except RuntimeError:  # torch's word for an output that does not depend on its input by a graph
        return "cut off"
    if not bool(slope.isfinite().all()):
        return f"not finite for {int((~slope.isfinite()).flatten(1).any(1).sum())} of {len(x)} images"
    return f"zero for all of {len(x)} images" if not bool(slope.any()) else None
