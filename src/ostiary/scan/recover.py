"""Recovering the smallest triggers of a form: what all scanners by inversion share."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Candidate, ClassScore, FormName, ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import batch_size, split, to_uint8, to_unit
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.scan.aims import Aim, ToClass
from ostiary.scan.forms import Form
from ostiary.scan.inversion import Inverted, invert
from ostiary.scan.outlier import anomaly_index, size_ratio
from ostiary.scan.penalty import Schedule
from ostiary.training import predicted, rate
from ostiary.training.loop import has_fast_bf16

CPU_IMAGES = 128
"""Images in one forward pass on a CPU: more do not pay there, and fewer cost a small network 15 %."""
BF16_TOLERANCE = 0.1
"""How far probabilities in bf16 may lie from those in fp32."""
MAX_INDEX = 1e3
"""Stands in for an infinite index (no deviation among the other classes)."""
CUDA_VALUES = 2**25
"""Input values in one forward pass on a CUDA device: 10,922 images of 3x32x32, 222 of 3x224x224."""


@dataclass(slots=True)
class Recovered:
    """The triggers of all searches, and how often each sends images where it should, by the model as it is.

    `search` are rates on the images that drove the search, `held_out` on those that it never saw;
    `sample` [c, h, w] is one of the latter.
    """

    found: Inverted
    search: list[Rate]
    held_out: list[Rate]
    sample: Tensor


def recover(
    model: TorchClassifier,
    trusted: LabelledSet[Images],
    form: Form,
    schedule: Schedule,
    *,
    bf16: bool,
    run: Run,
    label: str,
    aim: Aim | None = None,
) -> Recovered:
    """Search on half of the trusted images, and measure on both halves; raises what reading `trusted` raises.

    Without an `aim` there is one search towards every class, on images by their labels. An `aim` that moves classes
    against each other is held against the model's own answers: what it mistakes anyhow is no success of a trigger.
    """
    own, aim = aim is not None, aim or ToClass(torch.arange(len(model.classes)))
    halves = []
    for part in split(trusted, (0.5, 0.5), seed=run.seed):
        x = part.take(range(len(part)))
        halves.append((x, predicted(model, x) if own else part.labels))
    found = _invert(model, *halves[0], aim, form, schedule, bf16=bf16, run=run, label=label)
    flips = [flip_rates(model, form, found, x, y, aim) for x, y in halves]
    return Recovered(found, flips[0], flips[1], halves[1][0][0])


def _invert(
    model: TorchClassifier,
    x: Images,
    y: Labels,
    aim: Aim,
    form: Form,
    schedule: Schedule,
    *,
    bf16: bool,
    run: Run,
    label: str,
) -> Inverted:
    quick, dtype = frozen(model, bf16=bf16 and has_fast_bf16(run.device))
    cuda = run.device.type == "cuda"
    images = CUDA_VALUES // x[0].numel() if cuda else batch_size(x.shape[1:], CPU_IMAGES)
    together = max(1, images // schedule.batch)
    return invert(quick, x, y, aim, schedule, form=form, dtype=dtype, together=together, run=run, label=label)


def frozen(model: TorchClassifier, *, bf16: bool) -> tuple[TorchClassifier, torch.dtype]:
    """A fused copy, in bf16 where the model bears it: the user's own code may hold constants in fp32."""
    if bf16:
        quick, plain = fused_inference(model), model.predict(model.probe())
        quick.module.to(dtype=torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            if bool((quick.predict(quick.probe()) - plain).abs().max() <= BF16_TOLERANCE):
                return quick, torch.bfloat16
        except RuntimeError:  # torch's word for operands of different types
            pass
    return fused_inference(model, channels_last=True), torch.float32


def flip_rates(model: Predictor[Images], form: Form, found: Inverted, x: Images, y: Labels, aim: Aim) -> list[Rate]:
    """How many images of the first group each recovered trigger sends where it should, by the model as it is.

    Images have 8 bits, as all that come in files: what rests on finer steps is no trigger that anybody could use.
    """
    rates = []
    for row in range(len(found.size)):
        at = torch.tensor([row])
        counted = aim.counted(at, y)[0, 0]
        if bool(torch.isnan(found.size[row]) | found.dropped[row]) or not bool(counted.any()):
            rates.append(Rate(k=0, n=0))
            continue
        own = tuple(part[at] for part in found.parts)
        answers = predicted(model, to_unit(to_uint8(form.apply(x[counted], own)[0])))
        rates.append(rate(answers == aim.wanted(at, y)[0, counted]))
    return rates


def evidence(recovered: Recovered, form: FormName, artifact: str, *, size: str = "size") -> ModelEvidence:
    """Each class's size under the name `size`, its ratio against the other classes, and its flips.

    The score of a class is its ratio. Classes whose search found nothing that works are
    unscored, but examined: no trigger of this form leads there. Classes that were dropped have the size
    that triggers as large as theirs came to, and no flips; without such classes there is the anomaly index.
    Patches come with their mask and pattern.
    """
    found, search, held_out = recovered.found, recovered.search, recovered.held_out
    reached = torch.where(found.dropped, found.tried, found.size) * found.shrink
    sizes = torch.where(found.finished, reached, float("nan")).double().numpy()
    index = np.clip(anomaly_index(sizes), -MAX_INDEX, MAX_INDEX)
    if bool(found.dropped.any()):  # their expected sizes lie close together, so that any other size is far out
        index = np.full(len(sizes), np.nan)
    ratio = size_ratio(sizes, torch.where(found.finished, found.tried * found.shrink, float("nan")).double().numpy())
    rows, candidates = [], []
    for label in range(len(sizes)):
        rates = {"flip_search": search[label], "flip_held_out": held_out[label]}
        values = {size: sizes[label], "anomaly_index": index[label], "size_ratio": ratio[label]}
        values["flip_held_out"] = held_out[label].value if held_out[label].n else float("nan")
        measures = {name: float(value) for name, value in values.items() if not np.isnan(value)}
        own = measures.get("size_ratio")
        rows.append(ClassScore(label=label, score=own, measures=measures, rates=rates))
        if size in measures and not bool(found.dropped[label]):
            candidates.append(
                Candidate(
                    subject=f"class:{label}",
                    target=label,
                    score=own,
                    size=measures[size],
                    form=form,
                    flip_search=search[label],
                    flip_held_out=held_out[label],
                    artifact=artifact,
                    mask=found.parts[0][label, 0].numpy() if form == "patch" else None,
                    pattern=found.parts[1][label].numpy() if form == "patch" else None,
                    parts=() if form == "patch" else tuple(part[label].numpy() for part in found.parts),
                )
            )
    scores = [row.score for row in rows if row.score is not None]
    return ModelEvidence(
        score=max(scores, default=None),
        per_class=tuple(rows),
        candidates=tuple(sorted(candidates, key=lambda c: -(c.score or 0.0))),
        examined=tuple(sorted(f"class:{label}" for label in found.finished.nonzero().flatten().tolist())),
        passes=found.passes,
    )


def keep_patches(run: Run, artifact: str, mask: Tensor, pattern: Tensor, sample: Tensor) -> None:
    """Keep masks [k, 1, h, w], patterns [k, c, h, w] and a sample [c, h, w] as reports and repairs read them."""
    run.artifact(f"{artifact}-mask", mask.squeeze(1))
    run.artifact(f"{artifact}-pattern", pattern)
    run.artifact(f"{artifact}-sample", sample)


def patch_evidence(recovered: Recovered, artifact: str, success: float, run: Run) -> ModelEvidence:
    """`evidence` of a search for patches, its arrays kept under `artifact`.

    A patch that is large enough leads anywhere: a class that none reached, at the share `success` of the images, was
    searched too briefly. It counts as not examined, and a caution says so.
    """
    found = recovered.found
    missed = int((torch.isnan(found.size) & found.finished & ~found.dropped).sum())
    if missed:
        run.caution("OS904", f"no patch reached {success:.0%} success for {missed} classes; left unscored")
    mask, pattern = found.parts
    keep_patches(run, artifact, mask, pattern, recovered.sample)
    told = evidence(recovered, "patch", artifact, size="mask_l1")
    dropped = (f"class:{label}" for label in found.dropped.nonzero().flatten().tolist())
    every = {*dropped, *(one.subject for one in told.candidates)}
    return told.model_copy(update={"examined": tuple(sorted(every))})
