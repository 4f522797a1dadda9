"""SPECTRE: poison shows in the directions that a robust estimate of a class's covariance does not explain."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.linalg import eigh

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import FLOOR
from ostiary.screen.classes import Split, screen_classes
from ostiary.screen.parting import part_line

ARTIFACT = "spectre"
ALPHA = 4.0
"""How sharply the scores look at the directions of the largest excess; the paper's."""
REMOVED = 1.5
"""Times the bound on the poison that may be removed; the paper's."""
LADDER = (3, 10, 32, 100)
"""Numbers of directions that are tried; the results are compared in the most that there are."""
PER_DIRECTION = 30
"""Samples for every direction beyond the first three: with ten, small ordinary classes part as poison does."""
ROUNDS, STEPS = 4, 5
"""Rounds of the filter, and steps of the power method in each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectre:
    """Quantum entropy (QUE) scores of each class's features, whitened by a robust estimate of their covariance.

    Source: Hayase, Kong, Somani, Oh 2021, SPECTRE (ICML, arXiv 2104.11315). The features of a class are projected on
    their k strongest directions. A filter (Diakonikolas, Kamath, Kane, Li, Moitra, Stewart 2017, Being Robust (in High
    Dimensions) Can Be Practical) estimates mean and covariance although a share `epsilon` is poison. Where the whitened
    samples h have the covariance S, Q = exp(4 (S - I) / (|S| - 1)) and the score is h'Qh / tr(Q): it looks at all
    directions in which the class varies more than it should. Of several k that one counts whose removal of the
    1.5 epsilon n highest scores leaves an estimate under which the whole class has the highest mean score.
    """

    card: ClassVar[Card] = Card(
        id="screen.spectre",
        summary="scores how far samples lie out where a robust covariance of their class explains least",
        paper="Hayase et al. 2021, ICML, arXiv 2104.11315",
        official_code="https://github.com/SewoongLab/spectre-defense",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward pass over the data; a few dozen matrix products per class",
        code="OS306",
        limits=(
            Limit(measure="separation", low=0.865),
            Limit(measure="minority", high=0.45),
            Limit(measure="suspected", low=5),
        ),
        deviations=(
            "the share to remove is not given: the cut is the best parting of the roots of the scores in two",
            "the limit is on that parting less 0.3 times the support of the group's label by nearest neighbours",
            "the class of the highest mean score is not taken for the target: there may be no attack",
            "each round of the filter removes a fixed share, not what is beyond a tail bound; in all 1.5 epsilon n",
            "the mean is that of what the filter keeps",
            "one direction for every thirty samples of a class at most, and four numbers of directions, not ten",
        ),
        blind_spots=(
            "half of a class or more poisoned: the honest samples then stand out, and the ranking is upside down",
            "less than 1 % of a class poisoned; blended, clean-label and adaptive poison, whose class is not accused",
            "source-specific poison that a small network merges with its class",
            "a real class of two kinds: unpoisoned ones and nines of the digits come near the limit",
        ),
        marks=frozenset({"mechanism"}),
    )

    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """The largest share of a class that may be poison."""

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample with its QUE score; the high side of a class's cut is suspected.

        Raises OutOfTime once the deadline of `run` has passed.
        """

        def split(features: np.ndarray, label: int) -> Split:
            run.step(label, len(data.classes), "robust covariances")
            return _split(features, self.epsilon)

        return screen_classes(data, model, split, artifact=ARTIFACT, run=run)


def _split(features: np.ndarray, epsilon: float) -> Split:
    points = _projected(features)
    scores, _ = best_scores(points, epsilon)
    roots = np.sqrt(scores)
    group, parting = part_line(roots)
    high = group if roots[group].mean() >= roots[~group].mean() else ~group
    return Split(score=parting, measure="parting", scores=scores, suspected=high, points=points[:, :2])


def _projected(features: np.ndarray) -> np.ndarray:
    """The features [n, d] about their mean along their strongest directions, as many as the samples can tell."""
    centred = (features - features.mean(0)).astype(np.float64)
    n, d = centred.shape
    most = min(max(LADDER), d, max(min(LADDER), n // PER_DIRECTION))
    # The top right singular vectors are the top eigenvectors of the d x d Gram matrix: far cheaper than an SVD.
    variance, axes = eigh(centred.T @ centred, subset_by_index=[d - most, d - 1])
    told = max(1, int((variance > FLOOR * variance[-1]).sum()))
    return np.asarray(centred @ axes[:, ::-1][:, :told])


def best_scores(points: np.ndarray, epsilon: float) -> tuple[np.ndarray, int]:
    """The QUE scores [n] of points [n, m] along the number k <= m of directions that tells most, and that k.

    Hayase et al. 2021, the algorithm that identifies k.
    """
    n, most = points.shape
    removed = round(REMOVED * epsilon * n)
    best, found, chosen = -np.inf, np.zeros(n), 0
    for k in sorted({min(k, most) for k in LADDER}):
        scores = que_scores(points[:, :k], robust_part(points[:, :k], epsilon))
        left = np.argsort(scores, kind="stable")[: n - removed]
        mean = float(que_scores(points, left).mean())
        if mean > best:
            best, found, chosen = mean, scores, k
    return found, chosen


def que_scores(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """QUE scores [n] of points [n, k], whitened by the mean and covariance of those at the rows `kept`."""
    place, whiten = _whitening(points[kept])
    white = (points - place) @ whiten
    excess, axes = eigh(np.cov(white.T, bias=True).reshape(white.shape[1], -1))
    # Less the largest exponent, which the trace takes out again: no overflow.
    weights = np.exp(ALPHA * (excess - excess[-1]) / max(excess[-1] - 1, FLOOR))
    return np.asarray((white @ axes) ** 2 @ (weights / weights.sum()))


def robust_part(points: np.ndarray, epsilon: float) -> np.ndarray:
    """Rows of points [n, k] whose mean and covariance are about those of the honest ones, though `epsilon` are not.

    Under a Gaussian no quadratic form of the whitened points varies by more than twice its squared norm. Outliers let
    one vary more: the form that varies most is sought, and the points at which it is furthest from its median go.
    """
    kept = np.arange(len(points))
    shares = np.diff(np.linspace(0, REMOVED * epsilon * len(points), ROUNDS + 1).round().astype(int))
    for share in shares:
        place, whiten = _whitening(points[kept])
        values = _heaviest_form(((points[kept] - place) @ whiten).astype(np.float32))
        order = np.argsort(np.abs(values - np.median(values)), kind="stable")
        kept = np.sort(kept[order[: len(kept) - share]])
    return kept


def _heaviest_form(white: np.ndarray) -> np.ndarray:
    """The values [n] of the quadratic form of unit norm that varies most over points [n, k], by the power method."""
    values = (white**2).sum(1)
    for _ in range(STEPS):
        form = (white * (values - values.mean())[:, None]).T @ white
        values = ((white @ (form / max(float(np.linalg.norm(form)), FLOOR))) * white).sum(1)
    return np.asarray(values)


def _whitening(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [k] of points [n, k] and the matrix [k, k] that makes their covariance the identity."""
    place = points.mean(0)
    centred = points - place
    variance, axes = eigh(centred.T @ centred / len(points))
    return place, axes / np.sqrt(np.maximum(variance, max(FLOOR * float(variance[-1]), np.finfo(float).tiny)))
