"""MM-BM: bound what the channels give, as low as the task bears."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ostiary.core.card import Card, Needs
from ostiary.core.errors import ModelError, NotMet
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8, split
from ostiary.models.carried import bound
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.channels import hits
from ostiary.repair.tune import Tuning, batches_for

BATCH = 128
GROWTH = 1.2
"""By how much the weight of the bounds grows or shrinks at a look."""
LOOK = 10
"""Steps between two looks at the accuracy."""

Bounds = dict[str, Tensor]
"""The bounds [channels] of each batch normalisation, by its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MmBm:
    """Bound the activation of every channel from above, as low as accuracy on trusted images bears.

    Source: Wang, Xiang, Miller, Kesidis 2024, MM-BD (IEEE S&P; arXiv 2205.06900), the mitigation MM-BM: a trigger works
    by activations larger than any honest image has. Bounds z, one for each channel, minimise the squared change of the
    logits on trusted images plus c times the sum over layers of |z|; no weight changes. c grows by a factor of 1.2
    while accuracy on half of the trusted images, which no gradient saw, is within `tolerance` of the model's, and
    shrinks while it is not. What is kept are the lowest bounds at which it was; failing that the largest activations on
    all trusted images, which change no answer on these.

    Raises NotMet for fewer than four trusted images and for a model without batch normalisation, ModelError where the
    loss is no longer a number.
    """

    card: ClassVar[Card] = Card(
        id="repair.mm-bm",
        summary="bounds what each channel gives, as low as the task bears",
        paper="Wang et al. 2024, IEEE S&P, arXiv 2205.06900",
        official_code="https://github.com/wanghangpsu/MM-BD",
        needs=Needs(access="gradients", modality="images", trusted_per_class=5),
        cost="epochs over the trusted images; a pass over half of them every ten steps",
        deviations=(
            "bounds lie on what each batch normalisation gives, not on the output of the first three stages",
            "they start from the largest value on the trusted images, not from 8",
            "trusted images are shifted by up to two pixels: unshifted, bounds fit too few views",
            "accuracy that counts is that on images kept apart, not on those that the bounds learn from",
        ),
        blind_spots=(
            "triggers that work without large activations: on a small CNN SIG stays at 96 %, FTrojan at 23 %",
            "the bounds lie beside the weights: other programs that read the file must apply them",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(gt=0)] = 300
    lr: Annotated[float, Field(gt=0)] = 0.05
    c: Annotated[float, Field(gt=0)] = 0.2
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a copy that carries bounds; `evidence` is not used."""
        if len(trusted) < 4:
            raise NotMet(f"needs four trusted images, has {len(trusted)}")
        learn, choose = split(trusted, (0.5, 0.5), seed=run.seed)
        plain, copy = model.clone().to(run.device), model.clone().to(run.device)
        start = _largest(copy, load_uint8(trusted))
        if not start:
            raise NotMet("needs batch normalisations, whose channels could be bounded")
        best = self._descend(copy, plain, start, learn, choose, run)
        _hold(copy, best)
        copy.module.requires_grad_(True)
        at = float(_length(best) / _length(start))
        return Repaired(
            copy, {"bounds": f"{at:.0%} of the largest activations, on {len(choose)} trusted images kept apart"}
        )

    def _descend(
        self,
        copy: TorchClassifier,
        plain: TorchClassifier,
        start: Bounds,
        learn: LabelledSet[Images],
        choose: LabelledSet[Images],
        run: Run,
    ) -> Bounds:
        """The lowest bounds that kept the accuracy on `choose`."""
        x, labels = choose.take(range(len(choose))).to(run.device), choose.labels
        floor = hits(plain, x, labels) - self.tolerance * len(labels)
        bounds = {name: most.clone().requires_grad_() for name, most in start.items()}
        _hold(copy, bounds)
        copy.module.requires_grad_(False)
        best, lowest, c = start, float(_length(start)), self.c
        optimizer = torch.optim.Adam(bounds.values(), lr=self.lr)
        tuning, rng = Tuning(epochs=1, lr=self.lr, batch=BATCH), run.generator("bounds")
        batches = batches_for(load_uint8(learn), learn.labels, tuning, steps=self.steps, rng=rng, device=run.device)
        for step, (shifted, _) in enumerate(batches, 1):
            with torch.no_grad():
                wanted = plain.logits(shifted)
            optimizer.zero_grad()
            loss = mse_loss(copy.logits(shifted), wanted) + c * _length(bounds)
            if not loss.isfinite():
                raise ModelError(f"the loss is not finite in step {step}", hint="set a lower mm-bm.lr")
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, most in bounds.items():
                    most.copy_(most.clamp(min=0.0).minimum(start[name]))
            if step % LOOK == 0 or step == self.steps:
                held, length = hits(copy, x, labels) >= floor, float(_length(bounds).detach())
                if held and length < lowest:
                    best, lowest = {name: most.detach().clone() for name, most in bounds.items()}, length
                c = c * GROWTH if held else c / GROWTH
            run.step(step, self.steps, "bounding")
        return best


def _hold(model: TorchClassifier, bounds: Bounds) -> None:
    for name, most in bounds.items():
        bound(model.module.get_submodule(name), most)


def _length(bounds: Bounds) -> Tensor:
    """The sum over layers of the length of their bounds."""
    return torch.stack([most.norm() for most in bounds.values()]).sum()


@torch.no_grad()
def _largest(model: TorchClassifier, pixels: Tensor, at_once: int = 256) -> Bounds:
    """The largest value, 0 at least, that each channel of each batch normalisation gives for these images."""
    found: Bounds = {}

    def note(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        most = output.amax((0, 2, 3)).clamp(min=0.0)
        found[name] = torch.maximum(found[name], most) if name in found else most

    layers = [(name, one) for name, one in model.module.named_modules() if isinstance(one, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers]
    try:
        for part in pixels.split(at_once):
            model.logits(part.to(model.device).float() / 255.0)
    finally:
        for hook in hooks:
            hook.remove()
    return found
