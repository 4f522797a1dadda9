"""What all dirty-label data attacks share: choose samples, stamp, relabel, shuffle, renumber."""

import math
from typing import Any

import numpy as np
import torch

from ostiary.attacks.truth import Mapping, Poisoned, StampTrigger, Truth, wanted
from ostiary.core.card import Card
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8
from ostiary.data.base import ImageSet

CHUNK = 4096


def poison_with(
    clean: ImageSet,
    trigger: StampTrigger,
    card: Card,
    params: dict[str, Any],
    *,
    mapping: Mapping,
    target: int,
    rate: float,
    run: Run,
) -> Poisoned:
    """Poison a share `rate` of the whole set with a stamped trigger and a label map.

    All-to-one takes samples of the other classes only. The poisoned set keeps nothing of the
    source's order or ids: everything is shuffled and renumbered, and pixels are uint8 for all.
    Raises DataError when the target is no class or too few samples can be poisoned.
    """
    classes, labels = len(clean.classes), clean.labels
    if not 0 <= target < classes:
        raise DataError(f"target {target} is outside the classes 0..{classes - 1}")
    wish = wanted(labels, mapping, target, classes)
    eligible = (wish != labels).nonzero().squeeze(1)
    count = math.floor(rate * len(labels) + 0.5)
    if not 0 < count <= len(eligible):
        raise DataError(
            f"rate {rate:g} of {len(labels)} samples means {count} poisoned, but {len(eligible)} can be",
            hint="choose a rate that gives at least one and no more than those outside the target class",
        )
    chosen = eligible[torch.randperm(len(eligible), generator=run.generator("choice"))[:count]]
    order = torch.randperm(len(labels), generator=run.generator("order"))
    poisoned = torch.zeros(len(labels), dtype=torch.bool)
    poisoned[chosen] = True
    source = load_uint8(clean)
    pixels = torch.empty_like(source)
    rng = run.generator("trigger")
    for begin in range(0, len(order), CHUNK):
        rows = order[begin : begin + CHUNK]
        x = source[rows]
        hit = poisoned[rows]
        if hit.any():
            stamped = trigger(x[hit].float() / 255.0, rng=rng)
            x[hit] = (stamped * 255.0).round().clamp(0, 255).to(torch.uint8)
        pixels[begin : begin + len(rows)] = x
    new_labels = torch.where(poisoned, wish, labels)[order]
    ids = tuple(f"{number:06d}" for number in range(len(order)))
    truth = Truth(
        attack=card.id,
        params=params,
        mapping=mapping,
        target=target,
        classes=tuple(clean.classes),
        seed=run.seed,
        rate=rate,
        source_digest=clean.digest,
        poisoned={ids[i]: int(labels[order[i]]) for i in np.flatnonzero(poisoned[order].numpy())},
        trigger=trigger,
    )
    return Poisoned(ArraySet(pixels, new_labels, clean.classes, ids), truth)
