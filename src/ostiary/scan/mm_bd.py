"""MM-BD: the largest margin that any input reaches for a class; a target class lies far above the others."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import stats
from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import ClassScore, ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference

CPU_IMAGES = 128
"""Images in one pass on a CPU; on a GPU a group is as large as memory bears."""
CUDA_IMAGES = 4096
LEAST = 1e-300
"""A p-value of 0 has no logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MMBD:
    """Climb from random images to the largest margin of every class, and ask how likely the largest of all is.

    Source: Wang, Xiang, Miller, Kesidis 2024, MM-BD (IEEE S&P; arXiv 2205.06900), sec. 4: the margin of
    class c at x is its logit minus the largest other logit, maximised over all images by gradient
    ascent from `starts` random images. A gamma distribution fitted to the margins of the other classes
    is the null; p is the chance that the largest of k draws from it exceeds the margin of c.
    """

    card: ClassVar[Card] = Card(
        id="scan.mm-bd",
        summary="climbs to the largest margin of every class, without any data, and compares the classes",
        paper="Wang et al. 2024, IEEE S&P, arXiv 2205.06900",
        official_code="https://github.com/wanghangpsu/MM-BD",
        needs=Needs(access="gradients", modality="images"),
        cost="starts x classes x steps forward and backward passes to the input, fewer where margins settle",
        code="OS202",
        limits=(Limit(measure="p_value", high=0.05),),
        deviations=(
            "images are cut to [0, 1] after every step, so that none gets stuck outside it; no momentum",
            "every class is tested against the others, not only the one with the largest margin",
        ),
        blind_spots=(
            "backdoors whose target gains no margin: weak ones, and those trained to keep margins alike",
            "all-to-all backdoors; models with fewer than five classes",
            "a natural class with a margin of its own: unbalanced training data",
        ),
        marks=frozenset({"mechanism"}),
    )

    starts: Annotated[int, Field(gt=0)] = 30
    steps: Annotated[int, Field(gt=0)] = 300
    lr: Annotated[float, Field(gt=0)] = 0.01
    tolerance: Annotated[float, Field(ge=0)] = 1e-5

    def scan(self, model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; `trusted` is not used."""
        frozen = fused_inference(model, channels_last=True)
        classes = len(model.classes)
        cuda = run.device.type == "cuda"
        at_once = CUDA_IMAGES if cuda else batch_size(model.input_shape, CPU_IMAGES)
        groups = torch.arange(classes).split(max(1, at_once // self.starts))
        margins = np.full(classes, np.nan)
        for number, group in enumerate(groups):
            if run.out_of_time:
                break
            start = torch.rand(self.starts, *model.input_shape, generator=run.generator("starts"))
            margins[group.numpy()] = self._climb(frozen, start.to(run.device), group, run).numpy()
            run.progress(number + 1, len(groups), self.card.name)
        return _evidence(margins)

    def _climb(self, model: TorchClassifier, start: Images, targets: Tensor, run: Run) -> Tensor:
        """The largest margin of each target [k], over all starts, at the last step; NaN where time ran out."""
        n, x = len(start), start.repeat(len(targets), 1, 1, 1)
        want = targets.to(x.device).repeat_interleave(n)
        going = torch.arange(len(targets))
        found = torch.full((len(targets),), float("nan"))
        last: Tensor | None = None
        for _ in range(self.steps):
            rows = (going[:, None] * n + torch.arange(n)).flatten()
            part = x[rows].requires_grad_()
            own = margin(model.logits(part.contiguous(memory_format=torch.channels_last)), want[rows])
            (slope,) = torch.autograd.grad(own.sum(), part)
            x[rows] = (part.detach() + self.lr * slope).clamp_(0, 1)
            own = own.detach().view(len(going), n)
            found[going] = own.max(1).values.cpu()
            total = own.sum(1).cpu()
            moving = torch.ones(len(going), dtype=torch.bool)
            if last is not None:
                moving = (total - last).abs() > self.tolerance * last.abs()
            going, last = going[moving], total[moving]
            if run.out_of_time:
                found[going] = float("nan")
                break
            if not len(going):
                break
        return found


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit of the target minus the largest other one, [n]."""
    own = logits.gather(1, targets[:, None]).squeeze(1)
    return own - logits.scatter(1, targets[:, None], float("-inf")).max(1).values


def p_values(margins: np.ndarray) -> np.ndarray:
    """How likely the largest of k draws exceeds each margin [k], from a gamma fitted to the other margins.

    NaN where a margin is, and everywhere with fewer than four margins. A gamma lives above zero: where
    a margin does not, all are moved up alike.
    """
    known = np.flatnonzero(~np.isnan(margins))
    found = np.full(margins.shape, np.nan)
    if len(known) < 4:
        return found
    values = margins[known]
    values = values - min(0.0, values.min() - 1e-3)
    for place, row in enumerate(known):
        others = np.delete(values, place)
        if np.ptp(others) <= 1e-9 * np.abs(others).max():
            found[row] = float(values[place] <= others.max())
            continue
        shape, _, scale = stats.gamma.fit(others, floc=0)
        # 1 - F^k, from the upper tail: 1 - F itself would round to zero long before p does.
        tail = stats.gamma.sf(values[place], shape, scale=scale)
        found[row] = -np.expm1(len(known) * np.log1p(-min(tail, 1 - 1e-15)))
    return found


def _evidence(margins: np.ndarray) -> ModelEvidence:
    rows = []
    for label, (value, p) in enumerate(zip(margins, p_values(margins), strict=True)):
        measures = {} if np.isnan(value) else {"margin": float(value)}
        if not np.isnan(p):
            measures["p_value"] = float(p)
        score = None if np.isnan(p) else float(-np.log10(max(p, LEAST)))
        rows.append(ClassScore(label=label, score=score, measures=measures))
    scores = [row.score for row in rows if row.score is not None]
    return ModelEvidence(
        score=max(scores, default=None),
        per_class=tuple(rows),
        examined=tuple(f"class:{row.label}" for row in rows if row.score is not None),
    )
