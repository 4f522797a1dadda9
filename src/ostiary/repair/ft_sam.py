"""FT-SAM: fine-tuning that also flattens the loss about the weights, which moves what plain fine-tuning leaves."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.tune import Tuning, fine_tune

TINY = 1e-12
SMOOTHING = 0.1
"""The share of the label that goes to all classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FtSam:
    """Fine-tune by the gradient at the worst weights nearby, where near is relative to each weight's size.

    Source: Zhu, Wei, Shen, Fan, Wu 2023, Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware
    Minimization (ICCV; arXiv 2304.11823), sec. 4: the weights w move by rho T^2 g / |T g| up the loss, with T = |w|
    and g the gradient, and the gradient there is taken at w; rho = 2 on CIFAR-10, 8 on Tiny ImageNet, rate 0.01, labels
    smoothed by 0.1, 100 epochs over 2,500 images in batches of 256. Neurons that a backdoor drives have large weights,
    and move most. Running statistics are those at w. Nothing is selected. Raises what `fine_tune` does.
    """

    card: ClassVar[Card] = Card(
        id="repair.ft-sam",
        summary="fine-tunes by the gradient at the worst weights nearby, so that large weights move, too",
        paper="Zhu et al. 2023, ICCV, arXiv 2304.11823",
        official_code="https://github.com/SCLBD/BackdoorBench",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="epochs over the trusted images, two passes a step",
        deviations=("40 epochs in batches of 32 at a rate that falls evenly",),
        blind_spots=("few trusted images: with 500 on a small CNN a patch stays (ASR 96 %) at 6 points of accuracy",),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 40
    lr: Annotated[float, Field(gt=0)] = 0.01
    rho: Annotated[float, Field(gt=0)] = 2.0

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        weights: list[Tensor] = [w for w in copy.module.parameters() if w.requires_grad]

        def backward(x: Images, want: Tensor) -> Tensor:
            loss = cross_entropy(copy.logits(x), want, label_smoothing=SMOOTHING)
            loss.backward()
            before = [weight.detach().clone() for weight in weights]
            climb(weights, self.rho)
            copy.module.zero_grad(set_to_none=True)
            with still_statistics(copy.module):
                cross_entropy(copy.logits(x), want, label_smoothing=SMOOTHING).backward()
            with torch.no_grad():
                torch._foreach_copy_(weights, before)
            return loss.detach()

        tuning = Tuning(epochs=self.epochs, lr=self.lr)
        fine_tune(copy, load_uint8(trusted), trusted.labels, tuning, run=run, label=self.card.name, backward=backward)
        return Repaired(copy)


@torch.no_grad()
def climb(weights: list[Tensor], rho: float) -> None:
    """Move the weights in place by rho T^2 g / |T g|, with T = |w| and their gradients g."""
    slopes = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    length = torch.stack([(w.abs() * g).norm() for w, g in zip(weights, slopes, strict=True)]).norm() + TINY
    torch._foreach_add_(weights, [rho * w**2 * g / length for w, g in zip(weights, slopes, strict=True)])


@contextlib.contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalisations as they are: a pass at other weights would spoil them."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
