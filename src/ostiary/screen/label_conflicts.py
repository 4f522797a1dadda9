"""Label conflicts: two pictures that are nearly the same and carry different labels."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.screen.classes import PAIRS_AT_ONCE, Split, part_classes
from ostiary.screen.pictures import BATCH, large_classes, thumbnail

EQUAL = 0.1
"""Cells agree that differ by less than this share of the picture's own contrast."""
LEAST_ROWS = 32
"""Samples held against all others at once, even of a large set: one alone would take the products' speed."""
LEVEL = 1 / 510
"""Half a level of 8 bits: cells that differ by less agree in any picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConflicts:
    """The sample of another label that looks most like each sample, and whether the two are nearly one picture.

    No paper: where poison with a changed label was made from pictures that are also in the set, the original stands
    beside it under its true label. Pictures are compared by thumbnails of 8 x 8 cells. Two are nearly one when the
    distance of their contrasts (the thumbnails less their mean, at length one) is at most `distance`, which finds
    what lies faintly over the whole picture, or when at least `agreement` of their cells agree, which finds patches.
    A sample's score is the likeness of the two (a cosine), one more where they are nearly one.

    A class is suspicious by the conflicts that no other class explains: the class with the most explains all of its
    own, those of its twins among them. Which of two twins is the planted one the pictures do not say; the twins of a
    class that is not accused are not put forward.

    Raises NotMet for fewer than two classes of ten samples.
    """

    card: ClassVar[Card] = Card(
        id="screen.label-conflicts",
        summary="looks for nearly equal pictures with different labels; needs no model",
        paper="none; nearest neighbours of thumbnails",
        needs=Needs(access="none", modality="images", training_data=True),
        cost="no model; compares all pairs: 3 s for 10,000 images, a minute for 50,000",
        code="OS311",
        limits=(Limit(measure="conflicting", low=0.001), Limit(measure="conflicts", low=5)),
        blind_spots=(
            "poison whose originals are not in the set, and clean-label poison",
            "an honest mistake: pictures that are in the set twice and were labelled twice",
            "warps, and patches that cover a tenth of the picture",
            "one source and one target: each class explains the other, and both are accused",
        ),
        marks=frozenset({"mechanism"}),
    )

    distance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    agreement: Annotated[float, Field(gt=0.5, le=1)] = 0.9

    def screen(
        self, data: LabelledSet[Images], model: Any, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample by how much the sample of another label that is most like it is like it."""
        classes, labels = large_classes(data), data.labels.numpy()
        colours = torch.cat([thumbnail(x) for x, _ in data.batches(BATCH)])
        rows = np.flatnonzero(np.isin(labels, classes))
        likeness, twins = _most_alike(_contrasts(colours[rows]), data.labels[rows], run)
        one = (likeness >= 1 - self.distance**2 / 2) & (_spread(colours[rows]) > 2 * LEVEL)
        one |= _agreement(colours[rows], colours[rows][twins]) >= self.agreement
        conflicts = one.numpy()
        scores, suspected = np.zeros(len(labels)), np.zeros(len(labels), bool)
        scores[rows], suspected[rows] = likeness.numpy() + conflicts, conflicts

        def split(pictures: np.ndarray, label: int) -> Split:
            own = labels == label
            share = float(suspected[own].mean())
            return Split(score=share, measure="twinned", scores=scores[own], suspected=suspected[own], points=pictures)

        found, _ = part_classes(data, colours.flatten(1).numpy(), split, word="classes", run=run)
        pairs = np.zeros((len(data.classes), len(data.classes)), int)
        np.add.at(pairs, (labels[rows][conflicts], labels[rows][twins.numpy()][conflicts]), 1)
        own = unexplained(pairs)
        return replace(found, per_class=tuple(_counted(row, int(own[row.label])) for row in found.per_class))


def _spread(colours: Tensor) -> Tensor:
    """The contrast of thumbnails [n, c, 8, 8]: the standard deviation of each."""
    return colours.flatten(1).std(1)


def _contrasts(colours: Tensor) -> Tensor:
    """Thumbnails as directions [n, d]: less their mean, at length one."""
    centred = colours.flatten(1) - colours.flatten(1).mean(1, keepdim=True)
    length: Tensor = centred.norm(dim=1, keepdim=True)
    return centred / length.clamp(min=1e-6)


def _most_alike(directions: Tensor, labels: Tensor, run: Run) -> tuple[Tensor, Tensor]:
    """The cosine to the most similar sample of another label, and its row, of every sample."""
    likeness, twins = [], []
    rows = max(LEAST_ROWS, PAIRS_AT_ONCE // len(directions))
    for start in range(0, len(directions), rows):
        run.step(start, len(directions), "label conflicts")
        part = slice(start, start + rows)
        cosines = directions[part] @ directions.T
        best = cosines.masked_fill_(labels[part, None] == labels, -2.0).max(1)
        likeness.append(best.values)
        twins.append(best.indices)
    return torch.cat(likeness), torch.cat(twins)


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    """The share of cells in which thumbnails [n, c, 8, 8] agree, [n]."""
    apart = (one - other).abs().amax(1).flatten(1)
    return (apart <= (EQUAL * _spread(one)).clamp(min=LEVEL)[:, None]).float().mean(1)


def unexplained(pairs: np.ndarray) -> np.ndarray:
    """How many conflicts of each class [k] no class with more of them explains.

    `pairs` [k, k] counts samples by label and by their twin's label. The class with the most, counted both ways, keeps
    its own and takes away those of its twins; then the next. Classes with equally many keep theirs together.
    """
    left, kept = pairs.copy(), np.zeros(len(pairs), int)
    while left.any():
        weight = left.sum(0) + left.sum(1)
        top = np.flatnonzero(weight == weight.max())
        kept[top] = left[top].sum(1)
        left[top] = left[:, top] = 0
    return kept


def _counted(row: ClassScore, conflicts: int) -> ClassScore:
    """The row with its unexplained conflicts, and their share of the class as its score."""
    if row.score is None:
        return row
    share = conflicts / row.measures["n"]
    measures = {**row.measures, "conflicts": conflicts, "conflicting": share}
    return row.model_copy(update={"score": share, "measures": measures})
