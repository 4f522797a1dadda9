"""The fusion of screenings: no paper; what it promises itself, on digits, which its weights were not fitted on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ostiary.attacks.badnets import BadNets
from ostiary.core.run import Run
from ostiary.screen import fusion
from ostiary.screen.fusion import Fusion
from ostiary.screen.summary import suspects_of

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "fusion.json"


@pytest.mark.parametrize("alone", [False, True])
def test_the_poison_leads_the_ranking_and_its_share_is_estimated(lab: Any, alone: bool) -> None:
    found = Fusion().screen(lab.poisoned.data, lab.model, None if alone else lab.test, run=Run())
    assert roc_auc_score(lab.is_poisoned, found.scores.numpy()) >= 0.99
    flagged = suspects_of(found, lab.poisoned.data, Fusion.card)
    assert abs(flagged.sum() - lab.is_poisoned.sum()) <= 0.1 * lab.is_poisoned.sum()
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()


@pytest.mark.parametrize("alone", [False, True])
def test_at_most_one_in_a_hundred_of_an_unpoisoned_set_is_suspected_and_no_class_accused(lab: Any, alone: bool) -> None:
    found = Fusion().screen(lab.part, lab.twin, None if alone else lab.test, run=Run())
    assert found.suspected.mean() <= 0.01
    assert not suspects_of(found, lab.part, Fusion.card).any()


def test_scores_are_chances(lab: Any) -> None:
    """Nine in ten samples with a chance above nine tenths are poison, and at most one in ten below one tenth."""
    found = Fusion().screen(lab.poisoned.data, lab.model, lab.test, run=Run())
    chances = found.scores.numpy()
    assert chances.min() >= 0 and chances.max() <= 1
    assert lab.is_poisoned[chances > 0.9].mean() >= 0.9
    assert lab.is_poisoned[chances < 0.1].mean() <= 0.1


def test_an_all_to_all_attack_is_seen_beside_trusted_samples(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", mapping="all-to-all", rate=0.1).poison(lab.part, run=Run(seed=0))
    found = Fusion().screen(made.data, train_on(made.data), lab.test, run=Run())
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    assert roc_auc_score(poisoned, found.scores.numpy()) >= 0.95


@pytest.mark.parametrize(("table", "weights"), [("beside trusted samples", "WITH_TRUSTED"), ("alone", "WITHOUT")])
def test_the_weights_are_those_of_the_record(table: str, weights: str) -> None:
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    row = next(row for row in rows if (row["table"], row["key"]) == ("weights", table))
    assert tuple(row["figures"].values()) == getattr(fusion, weights)


def test_mutant_with_its_weights_turned_round_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "WITH_TRUSTED", tuple(-weight for weight in fusion.WITH_TRUSTED))
    found = Fusion().screen(lab.poisoned.data, lab.model, lab.test, run=Run())
    assert roc_auc_score(lab.is_poisoned, found.scores.numpy()) < 0.5
