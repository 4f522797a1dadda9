"""Spectral Signatures: Tran, Li, Madry 2018, algorithm 1 and table 1 (remove 1.5 eps n, retrain: ASR to 0-2 %)."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run
from ostiary.screen.spectral_signatures import SpectralSignatures
from ostiary.screen.summary import suspects_of

BOUND = 0.34
"""The declared bound on the poison of a class, as the paper assumes one; never read from the truth."""


def kept(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Algorithm 1: without the 1.5 eps n highest scores of each class."""
    keep = np.ones(len(scores), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        keep[rows[np.argsort(-scores[rows])[: int(1.5 * BOUND * len(rows))]]] = False
    return keep


@pytest.fixture(scope="module")
def found(lab: Any) -> Any:
    return SpectralSignatures().screen(lab.poisoned.data, lab.model, None, run=Run())


def left(lab: Any, scores: np.ndarray) -> float:
    """Share of the poison that survives the removal."""
    keep = kept(scores, lab.poisoned.data.labels.numpy())
    return float((keep & lab.is_poisoned).sum() / lab.is_poisoned.sum())


def test_removal_takes_nearly_all_poison(lab: Any, found: Any) -> None:
    assert left(lab, found.scores.numpy()) <= 0.05


def test_the_cut_without_a_declared_bound_finds_the_poison_too(lab: Any, found: Any) -> None:
    flagged = suspects_of(found, lab.poisoned.data, SpectralSignatures.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).sum() <= 0.05 * lab.is_poisoned.sum()


def test_retraining_on_the_rest_closes_the_backdoor(lab: Any, found: Any, train_on: Any) -> None:
    keep = kept(found.scores.numpy(), lab.poisoned.data.labels.numpy())
    model = train_on(lab.poisoned.data.subset(np.flatnonzero(keep)), dataclasses.replace(RECIPE, epochs=12))
    assert lab.asr(model) <= 0.05
    assert lab.accuracy(model) >= 0.95, "half of every class is gone with this bound"


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = SpectralSignatures().screen(lab.part, lab.twin, None, run=Run())
    assert not suspects_of(found, lab.part, SpectralSignatures.card).any()


@pytest.mark.parametrize("seed", range(3))
def test_mutant_with_a_random_direction_fails(lab: Any, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    from ostiary.screen import spectral_signatures

    def random_direction(gram: np.ndarray, **_: Any) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.random.default_rng(seed).normal(size=(len(gram), 2))
        return np.ones(2), np.linalg.qr(vectors)[0]

    monkeypatch.setattr(spectral_signatures, "eigh", random_direction)
    found = SpectralSignatures().screen(lab.poisoned.data, lab.model, None, run=Run())
    assert left(lab, found.scores.numpy()) > 0.05


def test_shuffled_scores_fail(lab: Any, found: Any) -> None:
    order = torch.randperm(len(found.scores), generator=torch.Generator().manual_seed(0))
    assert left(lab, found.scores[order].numpy()) > 0.05
