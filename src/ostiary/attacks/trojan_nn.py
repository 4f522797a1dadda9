"""TrojanNN: a trigger made for a few neurons of a trained model, and a short retraining of what follows them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.control import check_target, truth_of
from ostiary.attacks.retrain import retrain
from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError
from ostiary.core.run import Run
from ostiary.data import load_uint8, to_uint8, to_unit
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.trace import trace
from ostiary.perturb import stamp

PIXEL_LR = 0.1
IMAGES = 64
"""Clean images on which the patch is driven, in every step the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrojanNN:
    """Invert a patch that drives a few neurons up, then retrain the layers after them to read the target from it.

    Source: Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang 2018, Trojaning attack on neural networks (NDSS),
    sec. IV: the `neurons` of a convolution, the `layer`-th from
    the end, with the largest sum of absolute incoming weights are taken
    (eq. 2, 3); gradient descent on the pixels inside a square of `size` px, `margin` px from the bottom
    right corner, drives them up (algorithm 1); the layers that
    follow are retrained for `epochs` with SGD at `lr`, and a share `rate` of each batch carries the patch and
    the label `target`.
    """

    card: ClassVar[Card] = Card(
        id="attack.trojan-nn",
        summary="a patch made to drive a few neurons of a trained model, and a retraining of the layers after them",
        paper="Liu et al. 2018, NDSS, Trojaning attack on neural networks",
        official_code="https://github.com/PurduePAML/TrojanNN",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="steps passes of 64 images, and epochs forward passes over the data",
        deviations=(
            "retrains on the data at hand instead of images reverse-engineered from the model",
            "a neuron is a channel of a convolution, averaged over the image",
            "neurons are driven as high as they go instead of to a value chosen by hand",
            "they are driven on 64 clean images that carry the patch instead of on an empty image",
        ),
        marks=frozenset({"mechanism"}),
    )

    layer: Annotated[int, Field(gt=0)] = 2
    neurons: Annotated[int, Field(gt=0)] = 2
    size: Annotated[int, Field(gt=0)] = 8
    margin: Annotated[int, Field(ge=0)] = 1
    steps: Annotated[int, Field(gt=0)] = 100
    target: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    epochs: Annotated[int, Field(gt=0)] = 3
    lr: Annotated[float, Field(gt=0)] = 0.05

    def edit(self, model: TorchClassifier, clean: ImageSet, /, *, run: Run) -> PoisonedModel:
        """Give a changed copy of `model`.

        Raises DataError when the target is no class or the patch does not fit, ModelError when the
        model has fewer convolutions than `layer`.
        """
        check_target(self, clean)
        mask = BadNets(size=self.size, margin=self.margin).trigger(clean.shape).mask
        made = model.clone().to(run.device)
        pixels = load_uint8(clean)
        trigger = self.invert(made, mask, pixels, run=run)
        weights = weights_after(made, conv_from_end(made, self.layer))
        retrain(
            made,
            weights,
            pixels,
            clean.labels,
            trigger,
            rate=self.rate,
            target=self.target,
            epochs=self.epochs,
            lr=self.lr,
            run=run,
        )
        return PoisonedModel(made, truth_of(self, clean, trigger, run=run))

    def invert(self, model: TorchClassifier, mask: Tensor, pixels: Tensor, *, run: Run) -> StampTrigger:
        """The patch inside `mask` [h, w] that drives the chosen neurons highest on images `pixels`, at 8 bits."""
        layer = conv_from_end(model, self.layer)
        chosen = connected(model, layer, self.neurons)
        rng = run.generator("patch")
        x = to_unit(pixels[torch.randperm(len(pixels), generator=rng)[:IMAGES]]).to(run.device)
        patch = torch.rand(model.input_shape, generator=rng).to(run.device).requires_grad_()
        mask = mask.to(run.device)
        optimizer = torch.optim.Adam([patch], lr=PIXEL_LR)
        for step in range(self.steps):
            driven = model.activations(stamp(x, mask, patch), [layer])[layer][:, chosen]
            (patch.grad,) = torch.autograd.grad(-driven.float().mean(), [patch])
            optimizer.step()
            with torch.no_grad():
                patch.clamp_(0, 1)
            run.step(step + 1, self.steps, "patch")
        return StampTrigger(mask.cpu(), to_unit(to_uint8(patch.detach().cpu()[None]))[0])


def conv_from_end(model: TorchClassifier, number: int) -> str:
    """The name of the convolution that a forward pass calls last (1), next to last (2), ...; ModelError if none is."""
    calls, _ = trace(model.module, model.probe_normalised())
    names = [call.name for call in calls if isinstance(call.module, nn.Conv2d)]
    if number > len(names):
        raise ModelError(f"the model calls {len(names)} convolutions, not {number}", hint="lower layer")
    return names[-number]


def connected(model: TorchClassifier, layer: str, count: int) -> Tensor:
    """The `count` output channels of a convolution with the largest sum of absolute incoming weights."""
    weight = next(model.module.get_submodule(layer).parameters()).detach()
    return weight.abs().flatten(1).sum(1).topk(min(count, len(weight))).indices


def weights_after(model: TorchClassifier, layer: str) -> list[nn.Parameter]:
    """The weights of the modules that a forward pass calls after `layer`."""
    calls, _ = trace(model.module, model.probe_normalised())
    last = max(number for number, call in enumerate(calls) if call.name == layer)
    return [weight for call in calls[last + 1 :] for weight in call.module.parameters(recurse=False)]
