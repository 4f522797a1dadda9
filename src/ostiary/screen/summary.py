"""From scores to the evidence that a record keeps."""

from typing import Any

import numpy as np
import torch

from ostiary.core.card import Card
from ostiary.core.decide import exceeds
from ostiary.core.execute import Summarise
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import SampleEvidence, Suspect
from ostiary.core.run import Run
from ostiary.data import ImageSet

LISTED = 1000
GALLERY = 24


def summariser(data: LabelledSet[Any], card: Card) -> Summarise:
    """The function that `execute` calls on what a screener of this card returned for `data`."""

    def summarise(value: SampleScores, run: Run) -> SampleEvidence:
        return _summarise(value, data, card, run)

    return summarise


def suspects_of(found: SampleScores, data: LabelledSet[Any], card: Card) -> np.ndarray:
    """[n] bool: suspected by the method and in a class that exceeds all limits of its card."""
    flagged = [row.label for row in found.per_class if exceeds(row, card.limits)]
    return np.asarray(found.suspected & np.isin(data.labels.numpy(), flagged))


def _summarise(found: SampleScores, data: LabelledSet[Any], card: Card, run: Run) -> SampleEvidence:
    scores = found.scores.numpy()
    suspected = suspects_of(found, data, card)
    rows = np.flatnonzero(suspected)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    listed = rows[:LISTED]
    run.artifact(f"{card.name}-scores", found.scores)
    run.artifact(f"{card.name}-suspected", suspected.astype(np.uint8))
    shown = listed[:GALLERY]
    if len(shown) and isinstance(data, ImageSet):
        near = [found.nearest.get(int(row), int(row)) for row in shown]
        run.artifact(f"{card.name}-gallery", data.pixels(torch.from_numpy(shown)))
        run.artifact(f"{card.name}-gallery-nearest", data.pixels(near))
    return SampleEvidence(
        n=len(data),
        scored=int(np.isfinite(scores).sum()),
        suspected=len(rows),
        per_class=found.per_class,
        suspects=tuple(
            Suspect(
                id=data.ids[row],
                label=int(data.labels[row]),
                score=float(scores[row]),
                nearest=data.ids[found.nearest[int(row)]] if int(row) in found.nearest else None,
            )
            for row in listed
        ),
        examined=tuple(f"class:{row.label}" for row in found.per_class if row.score is not None),
        artifact=card.name,
    )
