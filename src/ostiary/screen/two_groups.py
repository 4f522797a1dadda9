"""Two groups in a class: the ruler that variation within classes gives, and the likeliest parting under it."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from ostiary.core.memory import rows_of
from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import Within, class_means, whitening, within
from ostiary.screen.classes import MIN_MEMBERS, evenly
from ostiary.screen.features import SetFeatures, features_of
from ostiary.screen.parting import part_line

LEAST_TRUSTED = 3
"""Trusted samples for every feature: with about one, on digits, a natural kind of a class stood out as poison does."""
LEAST_PER_CLASS = 5
"""Trusted samples of every class, so that they say where the class lies."""
LEAST_CLASSES = 4
"""With fewer there is no middle to hold a class against."""
ROUNDS = 30
"""Moves of the border between two groups at most; it settles within a few."""
SETTLE = 2
"""Times the suspect data are parted for their own ruler; a third time moves J* of develop sets by 6 % at most."""
AXES = 10
MAX_SEARCHED = 2000
"""Samples of a class that the line is sought on, at even steps; the whole class is then cut along it."""
MAX_ROWS = 20_000
"""Samples that the data's own ruler is learned from; of larger sets a part, at even steps."""


@dataclass(frozen=True, slots=True)
class Ruler:
    """How features vary within a class, and where classes lie.

    `placed` tells whether trusted samples say where; else the suspect ones do. `measured` tells the same of variation.
    """

    within: Within
    placed: bool
    measured: bool


def ruler_of(data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, run: Run) -> Ruler:
    """From trusted samples as far as there are enough of them, else from the suspect data themselves.

    Without three trusted samples for every feature the variation within classes is that within the two likeliest
    groups of every class of the suspect data (Tang et al. 2021 fit both by expectation maximisation): poison in a
    class would else pass for variation.
    """
    classes = len(data.classes)
    known = None if trusted is None else (features_of(model, trusted, run).features, trusted.labels.numpy())
    if known is not None and np.bincount(known[1], minlength=classes).min() < LEAST_PER_CLASS:
        known = None
    if known is not None and len(known[0]) >= LEAST_TRUSTED * known[0].shape[1]:
        return Ruler(within(*known, classes), placed=True, measured=True)
    whole, labels = features_of(model, data, run), data.labels.numpy()
    own = _own_ruler(whole, labels, classes)
    if known is None:
        return Ruler(own, placed=False, measured=False)
    return Ruler(Within(class_means(*known, classes), own.whiten), placed=True, measured=False)


def _own_ruler(whole: SetFeatures, labels: np.ndarray, classes: int) -> Within:
    rows = evenly(np.arange(len(labels)), MAX_ROWS)
    features, labels = rows_of(whole.features, rows).astype(np.float64), labels[rows]
    means = class_means(features, labels, classes)
    ruler = Within(means, whitening(features - means[labels]))
    for _ in range(SETTLE - 1):
        rest = features - means[labels]
        for label in range(classes):
            members = np.flatnonzero(labels == label)
            if len(members) < MIN_MEMBERS:
                continue
            group = part_class(ruler.centred(features[members], label)).group
            for side in (members[group], members[~group]):
                rest[side] = features[side] - features[side].mean(0) if len(side) else 0.0
        ruler = Within(means, whitening(rest))
    return ruler


@dataclass(frozen=True, slots=True)
class Parted:
    """A class in two: `j` says how much likelier that is than one group, `plane` [m, >=1] are its strongest axes."""

    j: float
    group: np.ndarray
    plane: np.ndarray


def part_class(points: np.ndarray, axes: int = AXES) -> Parted:
    """The two likeliest groups of whitened points [m, d]; the search starts from cuts along their strongest axes.

    j is the likelihood ratio (Tang et al. 2021, sec. 4.3), normalised as chi-square with d degrees of freedom.
    """
    centred = points - points.mean(0)
    d = centred.shape[1]
    _, strongest = eigh(centred.T @ centred, subset_by_index=[max(0, d - axes), d - 1])
    some = centred[evenly(np.arange(len(centred)), MAX_SEARCHED)]
    _, axis = max((_best_line(some, start) for start in strongest.T), key=lambda found: found[0])
    group, _ = part_line(centred @ axis)
    return Parted(float((_gain(centred, group) - d) / np.sqrt(2 * d)), group, centred @ strongest[:, ::-1])


def _best_line(points: np.ndarray, axis: np.ndarray) -> tuple[float, np.ndarray]:
    """The gain of two groups over one, and the line that parts them; the search starts from a cut along `axis`.

    Under unit variance the best border between two groups stands at right angles to the line that joins their means.
    """
    before, group = None, np.zeros(len(points), bool)
    for _ in range(ROUNDS):
        group, _ = part_line(points @ axis)
        if before is not None and np.array_equal(group, before):
            break
        before, axis = group, points[group].mean(0) - points[~group].mean(0)
    return _gain(points, group), axis


def _gain(points: np.ndarray, group: np.ndarray) -> float:
    """Twice the gain in log-likelihood of two groups over one."""
    gap = points[group].mean(0) - points[~group].mean(0)
    n = len(points)
    return float(group.sum() * (n - group.sum()) / n * (gap**2).sum())


@dataclass(frozen=True, slots=True)
class OddGroup:
    """A class about its place, `points` [m, d], in two: which are odd, and the mean margins of these and of all."""

    points: np.ndarray
    parted: Parted
    odd: np.ndarray
    sure: tuple[float, float]


def odd_group(features: np.ndarray, logits: np.ndarray, label: int, ruler: Ruler, axes: int = AXES) -> OddGroup:
    """Part a class, by its features [m, d] and logits [m, k], and tell which of the two groups is the odd one."""
    points, margins = ruler.within.centred(features.astype(np.float64), label), margins_of(logits, label)
    parted = part_class(points, axes)
    odd = odd_one(parted.group, points, margins, ruler)
    return OddGroup(points, parted, odd, (float(margins[odd].mean()), float(margins.mean())))


def odd_one(group: np.ndarray, points: np.ndarray, margins: np.ndarray, ruler: Ruler) -> np.ndarray:
    """Which of the two groups, as a mask, is the odd one.

    Where trusted samples say where the class lies, the one whose mean lies further from there. Else the one that the
    model is surer of: a trigger is learned more easily than what classes look like (Li et al. 2021, Anti-Backdoor
    Learning).
    """
    inside, outside = group, ~group
    if ruler.placed:
        further = np.linalg.norm(points[inside].mean(0)) >= np.linalg.norm(points[outside].mean(0))
    else:
        further = bool(margins[inside].mean() >= margins[outside].mean())
    return inside if further else outside


def margins_of(logits: np.ndarray, label: int) -> np.ndarray:
    """By how much the logit [n, k] of `label` exceeds the largest other one, [n]."""
    values = logits.astype(np.float32)
    return np.asarray(values[:, label] - np.delete(values, label, axis=1).max(1))


def stand_out(j: np.ndarray, n: np.ndarray, margins: np.ndarray, ruler: Ruler) -> np.ndarray:
    """J* [k]: how far j lies above the median class, in robust standard deviations but at least its own; NaN is kept.

    Natural kinds let j grow with the number n [k] of a class's samples, so that of a class with more than the median
    class has is cut down to as many. `margins` [k, 2] are the mean ones of a class's odd group and of the whole class.
    Where no trusted samples say what belongs to a class, a group that the model is less sure of than of the median
    class is a kind of its class, not a trigger's: no J*. All NaN where fewer than `LEAST_CLASSES` are known.
    """
    known = j[~np.isnan(j)]
    if len(known) < LEAST_CLASSES:
        return np.full(len(j), np.nan)
    j = j * np.minimum(1.0, np.median(n[~np.isnan(j)]) / np.maximum(n, 1))
    found = above_median(j)
    return found if ruler.placed else np.where(margins[:, 0] >= np.nanmedian(margins[:, 1]), found, np.nan)


def above_median(values: np.ndarray) -> np.ndarray:
    """How far each value [k] lies above the median one, in robust standard deviations, at least 1; NaN is kept."""
    middle = float(np.nanmedian(values))
    return np.asarray((values - middle) / max(1.0, 1.4826 * float(np.nanmedian(np.abs(values - middle)))))
