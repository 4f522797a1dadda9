"""What class-by-class screeners share: features, the loop over classes, the reclassification, pictures."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ostiary.core.memory import rows_of
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data.base import ImageSet, as_image_set
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.features import features_of

MIN_MEMBERS = 10
"""Fewer samples of a class than this cannot be told apart; the class is left unscored."""

SAME = 1e-4
"""Features that differ by less than this share of the largest are equal."""

NEIGHBOURS = 5
MAX_RECLASSIFIED = 400
"""Samples of a group that are voted on, at even steps: their share is then known to a few points."""
MAX_VOTERS = 10_000
"""Samples that vote; of larger sets a part, at even steps, so that neither time nor memory grows with the set."""
PAIRS_AT_ONCE = 2**21
SUPPORT_WEIGHT = 0.3
SUPPORT_FULL = 0.4
"""Weight and cap of the support; set, like the limits, on digits models of seeds 100-105 and one CIFAR-10 model."""
MAX_POINTS = 2000
SHOWN_CLASSES = 2


@dataclass(frozen=True, slots=True)
class Split:
    """One class parted in two by a screener.

    `scores` [m] are the method's own scores, `suspected` [m] marks the smaller group, `points`
    [m, >=2] are coordinates to look at and to measure distance in, `score` is the class's measure.
    """

    score: float
    measure: str
    scores: np.ndarray
    suspected: np.ndarray
    points: np.ndarray


Splitter = Callable[[np.ndarray, int], Split]
Compare = Callable[[list[ClassScore]], list[ClassScore]]


def screen_classes(
    data: LabelledSet[Images],
    model: TorchClassifier,
    split: Splitter,
    compare: Compare | None = None,
    *,
    artifact: str,
    run: Run,
) -> SampleScores:
    """Part every class by the model's features of its samples; see `part_classes`. Also keeps a scatter.

    `compare` adds what only shows between classes; without it, the support that reclassification gives is added.
    """
    whole, labels = features_of(model, data, run), data.labels.numpy()
    found, parts = part_classes(data, whole.features, split, word=artifact, run=run)
    run.artifact(f"{artifact}-pca", _scatter(parts, run.seed))
    if compare is not None:
        rows = compare(list(found.per_class))
    else:
        support = reclassify(whole.thumbnails, labels, found.suspected)
        rows = [_supported(row, support[row.label]) if row.label in support else row for row in found.per_class]
    return replace(found, per_class=tuple(rows))


def part_classes(
    data: LabelledSet[Images], features: np.ndarray, split: Splitter, *, word: str, run: Run
) -> tuple[SampleScores, dict[int, Split]]:
    """Part every class with `split(features [m, d], label)`: scores, suspects and measures, and each class's parts.

    Classes with fewer than MIN_MEMBERS samples, or whose samples are all alike, are unscored, with a caution.
    """
    labels = data.labels.numpy()
    scores = np.full(len(labels), np.nan)
    suspected = np.zeros(len(labels), bool)
    rows: list[ClassScore] = []
    nearest: dict[int, int] = {}
    parts: dict[int, Split] = {}
    for label in range(len(data.classes)):
        members = np.flatnonzero(labels == label)
        if len(members) < MIN_MEMBERS:
            run.caution("OS906", f"class {label} has {len(members)} samples, too few to split; left unscored")
            rows.append(ClassScore(label=label, score=None, measures={"n": len(members)}))
            continue
        own = rows_of(features, members).astype(np.float32)
        if _alike(own):
            run.caution("OS906", f"class {label}: its {len(members)} samples are all alike; left unscored")
            rows.append(ClassScore(label=label, score=None, measures={"n": len(members)}))
            continue
        part = split(own, label)
        scores[members], suspected[members] = part.scores, part.suspected
        nearest |= _nearest_unsuspected(part, members)
        # Of the points only what is drawn is kept: those of all classes together grow with the set.
        parts[label] = replace(part, points=_plane(part.points).astype(np.float32))
        measures = {
            part.measure: part.score,
            "minority": float(part.suspected.mean()),
            "n": len(members),
            "suspected": int(part.suspected.sum()),
        }
        rows.append(ClassScore(label=label, score=part.score, measures=measures))
        run.progress(label + 1, len(data.classes), word)
    found = SampleScores(tuple(data.ids), torch.from_numpy(scores).float(), suspected, tuple(rows), nearest)
    return found, parts


def _alike(features: np.ndarray) -> bool:
    """Whether nothing but rounding tells the samples apart, which no cut may rest on."""
    return bool(np.ptp(features, axis=0).max() <= SAME * max(float(np.abs(features).max()), 1e-12))


def _supported(row: ClassScore, support: float) -> ClassScore:
    """The row with its support, and its separation: the class's score, less what speaks for an ordinary group."""
    separation = (row.score or 0.0) - SUPPORT_WEIGHT * min(support, SUPPORT_FULL)
    return row.model_copy(update={"measures": {**row.measures, "support": support, "separation": separation}})


def reclassify(thumbnails: np.ndarray, labels: np.ndarray, suspected: np.ndarray) -> dict[int, float]:
    """How much the suspected samples of each class look like their label, judged by the samples not suspected.

    Chen et al. 2018, sec. 4.3 (exclusionary reclassification), with the nearest neighbours of 8x8
    thumbnails in place of a retrained model. Gives the class's support: the share of the suspected samples
    that is voted into its label, over the same share for the rest of the class (each left out in
    turn). About 1 for an ordinary group, near 0 for a group that belongs elsewhere.
    """
    kept = evenly(np.flatnonzero(~suspected), MAX_VOTERS)
    voters = torch.from_numpy(rows_of(thumbnails, kept).astype(np.float32))

    def share(rows: np.ndarray, label: int, skip: int) -> float:
        queries = torch.from_numpy(rows_of(thumbnails, evenly(rows, MAX_RECLASSIFIED)).astype(np.float32))
        votes = labels[kept][_nearest(queries, voters, NEIGHBOURS + skip)[:, skip:].numpy()]
        winner = (votes[:, :, None] == np.arange(labels.max() + 1)).sum(1).argmax(1)
        return float((winner == label).mean())

    found = {}
    for label in np.unique(labels[suspected]).tolist():
        rest = kept[labels[kept] == label]
        if len(rest) and len(kept) > NEIGHBOURS + 1:
            own = share(np.flatnonzero(suspected & (labels == label)), label, 0)
            found[label] = own / max(share(rest, label, 1), 1e-3)
    return found


def by_id(data: LabelledSet[Images]) -> tuple[ImageSet, np.ndarray]:
    """The samples in the order of their ids, and their rows: in whatever order they are given, training goes alike."""
    rows = np.argsort(np.array(data.ids), kind="stable")
    return as_image_set(data).subset(torch.from_numpy(rows)), rows


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, at even steps."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _nearest(queries: Tensor, voters: Tensor, k: int) -> Tensor:
    """The rows [n, k] of the k voters nearest to each query, the nearest first."""
    squares = voters.square().sum(1)
    # A few at a time: all distances would fill the memory of a large set. Always in the same place: small results
    # between large blocks that come and go would leave holes in the memory which nothing fits into.
    rows = min(len(queries), max(1, PAIRS_AT_ONCE // len(voters)))
    place, found = torch.empty(rows, len(voters)), torch.empty(len(queries), k, dtype=torch.long)
    for part, nearest in zip(queries.split(rows), found.split(rows), strict=True):
        distances = torch.addmm(squares, part, voters.T, alpha=-2, out=place[: len(part)])
        nearest[:] = distances.topk(k, largest=False).indices
    return found


def _nearest_unsuspected(part: Split, members: np.ndarray) -> dict[int, int]:
    """For each suspected row of a class the nearest row of that class that is not suspected."""
    if part.suspected.all() or not part.suspected.any():
        return {}
    points = torch.from_numpy(part.points - part.points.mean(0)).float()
    near = _nearest(points[part.suspected], points[~part.suspected], 1)[:, 0].numpy()
    found = zip(members[part.suspected].tolist(), members[~part.suspected][near].tolist(), strict=True)
    return dict(found)


def _scatter(parts: dict[int, Split], seed: int) -> np.ndarray:
    """Rows (x, y, group, class) of the classes that part most clearly, MAX_POINTS at most."""
    shown = sorted(parts, key=lambda label: -parts[label].score)[:SHOWN_CLASSES]
    rows = [
        np.column_stack([part.points, part.suspected, np.full(len(part.points), label)])
        for label, part in ((label, parts[label]) for label in shown)
    ]
    if not rows:
        return np.empty((0, 4), np.float32)
    whole = np.concatenate(rows)
    if len(whole) > MAX_POINTS:
        whole = whole[np.sort(np.random.default_rng(seed).choice(len(whole), MAX_POINTS, replace=False))]
    return whole.astype(np.float32)


def _plane(points: np.ndarray) -> np.ndarray:
    """The first two coordinates; a line gets a second one of zero."""
    return points[:, :2] if points.shape[1] > 1 else np.pad(points, ((0, 0), (0, 1)))
