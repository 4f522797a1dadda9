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
from ostiary.data.texts import TextSet
from ostiary.screen.phrases import printable

LISTED = 1000
GALLERY = 24
EXCERPT = 400
"""Characters of a suspect text that a record keeps."""


def summariser(data: LabelledSet[Any], card: Card) -> Summarise:
    """The function that `execute` calls on what a screener of this card returned for `data`."""

    def summarise(value: SampleScores, run: Run) -> SampleEvidence:
        return _summarise(value, data, card, run)

    return summarise


def suspects_of(found: SampleScores, data: LabelledSet[Any], card: Card) -> np.ndarray:
    """[n] bool: suspected, and in a class that exceeds all limits of its card or with an accused phrase."""
    if found.phrases:
        return np.asarray(found.suspected)
    flagged = [row.label for row in found.per_class if exceeds(row, card.limits)]
    return np.asarray(found.suspected & np.isin(data.labels.numpy(), flagged))


def excerpt(data: LabelledSet[Any], row: int) -> dict[str, str]:
    """What a text and its answer begin with; nothing where samples are no texts."""
    if not isinstance(data, TextSet):
        return {}
    answer = {} if data.answers is None else {"answer": printable(data.answers[row])[:EXCERPT]}
    return {"text": printable(data.texts[row])[:EXCERPT], **answer}


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
        phrases=found.phrases[:LISTED],
        suspects=tuple(
            Suspect(
                id=data.ids[row],
                label=int(data.labels[row]),
                score=float(scores[row]),
                nearest=data.ids[found.nearest[int(row)]] if int(row) in found.nearest else None,
                **excerpt(data, int(row)),
            )
            for row in listed
        ),
        examined=tuple(f"class:{row.label}" for row in found.per_class if row.score is not None),
        artifact=card.name,
    )
