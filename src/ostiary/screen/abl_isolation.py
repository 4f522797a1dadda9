"""Isolation of Anti-Backdoor Learning: what a fresh network learns soonest, although it is not let below a loss."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.special import logsumexp
from scipy.stats import hypergeom

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, by_id, screen_classes
from ostiary.screen.features import features_of
from ostiary.training.ascent import train_by_ascent
from ostiary.training.flow import fresh_as

ARTIFACT = "abl-isolation"
LOW, HIGH = 0.05, 0.9
"""The quantiles of a class's losses whose ratio is its depth."""
LEAST_LOSS = 1e-9
"""Losses below are taken for this, so that their logarithm says something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AblIsolation:
    """Minus the loss of every sample under a fresh network that was trained by local gradient ascent for a few epochs.

    Source: Li, Lyu, Koren, Lyu, Li, Ma 2021, Anti-Backdoor Learning (NeurIPS; arXiv 2110.11571), stage one: descend on
    sign(l - gamma) l, which turns round where the loss l falls below `gamma`, so that nothing is learned well but what
    is learned with ease: triggers. The share `isolated` of the set with the lowest loss is suspected. The paper takes
    it for granted that the set is poisoned. Here a class is suspicious when more of the isolated samples carry its
    label than chance explains (hypergeometric, times the number of classes) and its depth stands out: the logarithm
    of how far the 90 % quantile of its losses lies above the 5 % one, over the same for the median class. An easy
    class has low losses as a whole, a poisoned one has a few that were learned far sooner than the rest.
    """

    card: ClassVar[Card] = Card(
        id="screen.abl-isolation",
        summary="trains a network that is not let below a loss, and isolates what it learns all the same",
        paper="Li et al. 2021, NeurIPS, arXiv 2110.11571",
        official_code="https://github.com/bboylyg/ABL",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="five epochs of training, 400 steps at least",
        code="OS308",
        limits=(Limit(measure="depth", low=2.0), Limit(measure="chance", high=0.01)),
        deviations=(
            "the sign is that of a batch's mean loss, as in the authors' code; each sample's drives poison to gamma",
            "five epochs in which the learning rate rises and falls; the paper holds it for twenty",
            "a verdict on classes; the paper isolates from any set",
        ),
        blind_spots=(
            "poison that is learned no sooner than honest samples: warping, adaptive, faint on simple images",
            "poison with the label of an easy class, whose honest samples are learned as soon",
            "all-to-all backdoors: every class is as deep as the others",
            "most of the poison: the share isolated is less than an attack plants, so read the ranking beside it",
            "easy honest samples lead the ranking where nothing was planted",
        ),
        marks=frozenset({"mechanism"}),
    )

    gamma: Annotated[float, Field(ge=0)] = 0.5
    isolated: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    epochs: Annotated[int, Field(ge=1)] = 5

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Train a network of the model's architecture and score every sample with minus its loss."""
        ordered, _ = by_id(data)
        fresh = fresh_as(model, ordered, seed=run.seed)
        train_by_ascent(fresh, ordered, gamma=self.gamma, epochs=self.epochs, run=run)
        labels = data.labels.numpy()
        losses = losses_of(features_of(fresh, data, run).logits, labels)
        lowest = np.zeros(len(losses), bool)
        lowest[np.argsort(losses, kind="stable")[: max(1, round(self.isolated * len(losses)))]] = True
        depths = np.full(len(data.classes), np.nan)

        def split(features: np.ndarray, label: int) -> Split:
            rows = labels == label
            low, high = np.log(np.maximum(np.quantile(losses[rows], (LOW, HIGH)), LEAST_LOSS))
            depths[label] = high - low
            share = float((lowest & rows).sum() / lowest.sum())
            return Split(share, "share", -losses[rows], lowest[rows], features)

        def compare(rows: list[ClassScore]) -> list[ClassScore]:
            return [_judged(row, depths, int(lowest.sum()), len(losses)) for row in rows]

        return screen_classes(data, fresh, split, compare, artifact=ARTIFACT, run=run)


def losses_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy [n] of logits [n, k]."""
    values = logits.astype(np.float64)
    return np.asarray(logsumexp(values, axis=1) - values[np.arange(len(labels)), labels])


def _judged(row: ClassScore, depths: np.ndarray, isolated: int, n: int) -> ClassScore:
    """The row with its depth over that of the median class, and how likely as many isolated ones are by chance."""
    if row.score is None:
        return row
    tail = hypergeom.sf(row.measures["suspected"] - 1, n, row.measures["n"], isolated)
    found = {
        "depth": float(depths[row.label] / max(float(np.nanmedian(depths)), LEAST_LOSS)),
        "chance": float(min(1.0, len(depths) * tail)),
    }
    return row.model_copy(update={"measures": {**row.measures, **found}})
