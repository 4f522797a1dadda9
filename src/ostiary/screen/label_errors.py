"""Label errors: samples whose picture looks like another class, found by confident learning without a model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.special import softmax
from scipy.stats import binom
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.screen.classes import Split, part_classes
from ostiary.screen.pictures import BATCH, edges, large_classes, own_order, thumbnail

BLOCKS = 4
CELL = np.ones((2, 2))
"""Blocks a side, and the cells of one."""
SHRUNK = 0.3
"""How far the covariance of a view is shrunk; set, like what is allowed below, on develop sets."""
ALLOWED = 0.4
"""Of all doubts in the set, the share that one class may have in excess: hard classes are doubted more than others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelErrors:
    """Confident learning: how likely every sample's own label is, by classifiers that did not see the sample.

    Source: Northcutt, Jiang, Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels (JAIR), by the
    authors' library cleanlab: thresholds per class, the joint of given and likely labels, and the samples pruned by
    noise rate. The probabilities are of linear discriminants by cross-validation, on colours and edges of coarse
    cells, equal priors. The picture is cut into 16 blocks, which are dealt to four views, `deals` times; each view has
    its classifier, and the median over all counts, so that a small trigger, which most views do not see, is not taken
    for the class. A sample's score is the negative logarithm of its label's probability.

    A class is suspicious when far more samples of its label look like other classes than samples of other labels look
    like it: classes that are merely alike are doubted both ways.

    Raises NotMet without cleanlab, or for fewer than two classes of ten samples.
    """

    card: ClassVar[Card] = Card(
        id="screen.label-errors",
        summary="looks for samples whose picture looks like another class; needs no model",
        paper="Northcutt et al. 2021, JAIR, arXiv 1911.00068",
        official_code="https://github.com/cleanlab/cleanlab",
        needs=Needs(access="none", modality="images", training_data=True),
        cost="no model; 64 linear discriminants, about 6 s for 10,000 images",
        code="OS311",
        limits=(Limit(measure="excess", low=0.07), Limit(measure="chance", high=0.01)),
        deviations=(
            "the classifier is none of the paper's: linear discriminants on coarse cells, the median of partial views",
            "single classes are accused, by doubts one way over doubts the other way; the paper accuses none",
            "trusted samples are not used",
        ),
        blind_spots=(
            "it cannot tell an honest mistake from poison: labels that are wrong one way accuse their class",
            "a class far harder than all others: of 20 kinds of photograph, unpoisoned, one is accused",
            "clean-label poison: its labels are right",
            "triggers all over the picture on a tenth of the set: the classifier learns them as the class",
            "1 % of a set like CIFAR-10, of which the classifier tells half: ranked, but no class is accused",
        ),
        marks=frozenset({"mechanism"}),
    )

    deals: Annotated[int, Field(ge=1)] = 4
    folds: Annotated[int, Field(ge=2, le=10)] = 4

    def screen(
        self, data: LabelledSet[Images], model: Any, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample by how unlikely its own label is."""
        find, quality = _cleanlab()
        classes, labels = large_classes(data), data.labels.numpy()
        rows = own_order(data.ids)
        rows = rows[np.isin(labels[rows], classes)]
        given = np.searchsorted(classes, labels[rows])
        colours, lines = _cells(data, run)
        chances = self._chances(np.concatenate([_even(colours[rows]), _even(lines[rows])], 1), given, run)
        scores, doubted, likely = np.zeros(len(labels)), np.zeros(len(labels), bool), np.zeros(len(labels), int)
        scores[rows] = -np.log(np.maximum(quality(given, chances, method="self_confidence"), 1e-300))
        doubted[rows] = find(given, chances, filter_by="prune_by_noise_rate", n_jobs=1)
        likely[rows] = classes[np.where(np.arange(len(classes)) == given[:, None], -1, chances).argmax(1)]

        def split(pictures: np.ndarray, label: int) -> Split:
            own = labels == label
            share = float(doubted[own].mean())
            return Split(score=share, measure="doubted", scores=scores[own], suspected=doubted[own], points=pictures)

        found, _ = part_classes(data, colours.reshape(len(labels), -1), split, word="classes", run=run)
        claimed = np.bincount(likely[doubted], minlength=len(data.classes))
        allowed = ALLOWED * float(doubted[rows].mean())
        return replace(found, per_class=tuple(_one_way(row, claimed, allowed) for row in found.per_class))

    def _chances(self, cells: np.ndarray, given: np.ndarray, run: Run) -> np.ndarray:
        """How likely each label is for each sample, [n, k], by classifiers trained on the other folds."""
        classes = int(given.max()) + 1
        rng = np.random.default_rng(run.seed)
        fold = _folds(given, self.folds, rng)
        views = [view for _ in range(self.deals) for view in rng.permutation(BLOCKS**2).reshape(BLOCKS, BLOCKS)]
        log = np.empty((len(given), len(views), classes), np.float32)
        for number, view in enumerate(views):
            seen = cells[:, :, np.kron(np.isin(np.arange(BLOCKS**2), view).reshape(BLOCKS, BLOCKS), CELL) > 0]
            seen = seen.reshape(len(cells), -1)
            for out in range(self.folds):
                run.step(number * self.folds + out, len(views) * self.folds, "label errors")
                equal = np.full(classes, 1 / classes)
                one = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRUNK, priors=equal)
                one.fit(seen[fold != out], given[fold != out])
                log[fold == out, number] = one.predict_log_proba(seen[fold == out])
        return np.asarray(softmax(np.median(log, axis=1).astype(np.float64), axis=1))


def _cleanlab() -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """The library's search for label issues and its label quality scores; raises NotMet where it is missing."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise NotMet("needs cleanlab: pip install 'ostiary[labels]'") from error
    return find_label_issues, get_label_quality_scores


def _cells(data: LabelledSet[Images], run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Colours [n, c, 8, 8] and edges [n, 8, 8, 8] of all pictures."""
    parts = []
    for x, _ in data.batches(BATCH):
        parts.append((thumbnail(x), edges(x)))
        run.step(BATCH * len(parts), len(data), "pictures")
    colours, lines = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return colours, lines


def _even(cells: np.ndarray) -> np.ndarray:
    """Centred, and of unit spread over all its values."""
    centred = cells - cells.mean(0)
    return np.asarray(centred / max(float(centred.std()), 1e-6))


def _folds(given: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for every sample, each with the class shares of the whole."""
    fold = np.empty(len(given), int)
    for label in range(int(given.max()) + 1):
        own = rng.permutation(np.flatnonzero(given == label))
        fold[own] = np.arange(len(own)) % folds
    return fold


def _one_way(row: ClassScore, claimed: np.ndarray, allowed: float) -> ClassScore:
    """The row with what it has in excess: doubted samples of the label, less those of others that look like it.

    `chance` is a sign test, times the number of classes: how likely as many one way would be, were both as likely.
    """
    if row.score is None:
        return row
    inside, outside = int(row.measures["suspected"]), int(claimed[row.label])
    excess = (inside - outside) / row.measures["n"] - allowed
    chance = min(1.0, len(claimed) * float(binom.sf(inside - 1, inside + outside, 0.5)))
    measures = {**row.measures, "claimed": outside, "excess": excess, "chance": chance}
    return row.model_copy(update={"score": excess, "measures": measures})
