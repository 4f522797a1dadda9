"""Channels that a repair can silence: which there are, and how many of them accuracy bears."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import norms_after
from ostiary.models.trace import trace

Channel = tuple[str, int]
"""The name of a layer and the number of one of its channels."""


def prunable(model: TorchClassifier) -> dict[str, int]:
    """How many channels each prunable layer has, by name, in the order of their calls.

    These are all batch normalisations, and the convolutions whose output goes into none of them.
    """
    calls, _ = trace(model.module, model.probe_normalised())
    normed = norms_after(model)
    found: dict[str, int] = {}
    for call in calls:
        if isinstance(call.module, nn.BatchNorm2d):
            found[call.name] = call.module.num_features
        elif isinstance(call.module, nn.Conv2d) and call.name not in normed:
            found[call.name] = call.module.out_channels
    return found


@torch.no_grad()
def silence(model: TorchClassifier, channels: Sequence[Channel], *, bias: bool = False) -> None:
    """Set the weights of these channels to zero in place, and with `bias` their bias too."""
    rows: dict[str, list[int]] = {}
    for name, channel in channels:
        rows.setdefault(name, []).append(channel)
    for name, own in rows.items():
        layer = model.module.get_submodule(name)
        for weight in (layer.weight, layer.bias if bias else None):
            if isinstance(weight, Tensor):
                weight[own] = 0.0


GROWTH = 1.25
"""How many times more channels each level prunes than the one before it."""


def hits(model: TorchClassifier, x: Images, labels: Labels, at_once: int = 512) -> int:
    """How many of the images are predicted as labelled."""
    parts = zip(x.split(at_once), labels.split(at_once), strict=True)
    return sum(int((model.predict(part).argmax(1).cpu() == own).sum()) for part, own in parts)


def levels(total: int) -> list[int]:
    """How many of `total` channels the levels prune: one by one at first, then GROWTH times as many, but never all."""
    found: list[int] = []
    while not found or found[-1] < total - 1:
        last = found[-1] if found else 0
        found.append(min(total - 1, max(last + 1, int(last * GROWTH))))
    return found


def prune_while(
    model: TorchClassifier, masks: Mapping[str, Tensor], choose: LabelledSet[Images], tolerance: float, *, run: Run
) -> tuple[TorchClassifier, str]:
    """A copy without the channels of the lowest masks, as many as accuracy bears, and that in words.

    `masks` holds one mask [channels] for each layer, at most 1; a channel whose mask is 1 is never pruned. The search
    ends at the first level whose accuracy on `choose` lies more than `tolerance` below the model's: of all levels that
    happen to keep it, on so few images, the last is often one that does not.
    """
    listed = sorted((float(m), name, row) for name, mask in masks.items() for row, m in enumerate(mask.tolist()))
    order = [(name, row) for mask, name, row in listed if mask < 1]
    # Held in memory as the model takes them, since each level looks at them all.
    x, labels = choose.take(range(len(choose))).to(run.device), choose.labels
    floor = hits(model, x, labels) - tolerance * len(labels)
    best, trial, done, cut = model.clone(), model.clone(), 0, 0
    counts = levels(len(order)) if len(order) > 1 else []
    for number, count in enumerate(counts, 1):
        silence(trial, order[cut:count])
        cut = count
        if hits(trial, x, labels) < floor:
            break
        best, done = trial.clone(), count
        run.step(number, len(counts), "pruning")
    return best, f"{done} of {len(listed)} channels, on {len(choose)} trusted images kept apart"
