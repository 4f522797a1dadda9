"""Whether a model's answers and gradients can be searched at all, on a few images, before any method runs."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ostiary.core.card import Have
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.types import Images
from ostiary.data import ImageSet
from ostiary.inputs import have_of
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


def examine(model: Predictor[Images], trusted: LabelledSet[Images] | None) -> Health:
    """Ask `model` about trusted images, or random ones where there are none; raises what asking it raises.

    A black box has no gradients, and no caution about them. One that does not say its shape is asked nothing where
    there are no trusted images.
    """
    x = _images(model, trusted)
    inside = isinstance(model, TorchClassifier)
    if x is None:
        return Health((), inside)
    name = getattr(model, "name", None) or "the model"
    cautions = []
    reason: str | None = None
    with torch.random.fork_rng(devices=[]):
        first, again = model.predict(x), model.predict(x)
        if isinstance(model, TorchClassifier):
            reason = _gradient_fault(model, x.to(model.device))
    if bool((first - again).abs().max() > STEADY):
        cautions.append(("OS911", f"'{name}' answered the same images differently a second time"))
    # Noise may well be of one class to a model that is sure of everything, or that gives labels alone.
    certain = trusted is None and bool((first.max(1).values >= 1 - SAME).all())
    if len(x) > 1 and bool((first - first[:1]).abs().max() <= SAME) and not certain:
        cautions.append(("OS913", f"'{name}' gives all of {len(x)} images the same probabilities"))
    if reason is not None:
        cautions.append(("OS912", f"gradients to the input are {reason}: methods that follow them are left out"))
    return Health(tuple(cautions), inside and reason is None)


def known(model: Predictor[Images], trusted: ImageSet | None) -> tuple[Have, Health]:
    """What the planner may count on, gradients only where they lead anywhere; raises as `have_of` and `examine`."""
    have, health = have_of(model, trusted), examine(model, trusted)
    if have.access == "gradients" and not health.gradients:
        have = dataclasses.replace(have, access="probabilities")
    return have, health


def _images(model: Predictor[Images], trusted: LabelledSet[Images] | None) -> Tensor | None:
    if trusted is None:
        shape = getattr(model, "input_shape", None)
        return None if shape is None else torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
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
