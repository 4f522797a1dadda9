"""Masks on channels: gates through which a frozen model runs, learned on trusted images."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.channels import prunable
from ostiary.repair.tune import Tuning, batches_for

Masks = dict[str, Tensor]
"""One mask [channels] in [0, 1] for each prunable layer, by its name."""

Backward = Callable[[Masks, Images, Labels], None]
"""Leaves gradients in the masks."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gated layer gives in place of w x + b: scale times w x, plus shift times b; both [channels]."""

    scale: Tensor
    shift: Tensor | float = 1.0


@contextlib.contextmanager
def gated(model: TorchClassifier, gates: Mapping[str, Gate]) -> Iterator[None]:
    """Gate the named layers within the block; gradients reach the gates."""

    def hook_of(layer: nn.Module, gate: Gate) -> Callable[..., Tensor]:
        bias = getattr(layer, "bias", None)

        def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
            scale = gate.scale.view(1, -1, 1, 1)
            if bias is None:
                return output * scale
            b: Tensor = bias.view(1, -1, 1, 1)
            shift = gate.shift.view(1, -1, 1, 1) if isinstance(gate.shift, Tensor) else gate.shift
            return (output - b) * scale + b * shift

        return hook

    hooks = []
    for name, gate in gates.items():
        layer = model.module.get_submodule(name)
        # Before a bound that the layer carries: the gate stands for other weights.
        hooks.append(layer.register_forward_hook(hook_of(layer, gate), prepend=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def learn_masks(
    model: TorchClassifier,
    data: LabelledSet[Images],
    backward: Backward,
    *,
    steps: int,
    lr: float,
    batch: int,
    run: Run,
    label: str,
) -> Masks:
    """Masks that start from 1 and descend by what `backward` leaves in them; the model's weights stay as they are.

    What is given is their mean over all steps: many last masks are 0, and would stand in no order.
    Batch normalisation takes the statistics of the batch meanwhile, so that a mask counts by what its channel tells
    apart and not by how it shifts the scale of all later layers. The model is left with other running statistics.

    Raises NotMet for fewer than two images and for a model without a convolution, ModelError for masks that are no
    longer numbers.
    """
    masks = {name: torch.ones(n, device=run.device, requires_grad=True) for name, n in prunable(model).items()}
    sums = {name: torch.zeros_like(mask, requires_grad=False) for name, mask in masks.items()}
    if not masks:
        raise NotMet("needs a convolution, whose channels could be pruned")
    optimizer = torch.optim.SGD(masks.values(), lr=lr, momentum=0.9)
    tuning = Tuning(epochs=1, lr=lr, batch=batch)
    batches = batches_for(
        load_uint8(data), data.labels, tuning, steps=steps, rng=run.generator(label), device=run.device
    )
    model.module.requires_grad_(False).train()
    for step, (x, y) in enumerate(batches, 1):
        optimizer.zero_grad()
        backward(masks, x, y)
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                sums[name] += mask.clamp_(0, 1)
        run.step(step, steps, label)
    model.module.requires_grad_(True).eval()
    if not all(bool(total.isfinite().all()) for total in sums.values()):
        raise ModelError(f"the masks of {label} are not finite", hint="set a lower rate")
    # The sum of ones is exact, so a mask that never moved gives 1.
    return {name: (total / steps).cpu() for name, total in sums.items()}
