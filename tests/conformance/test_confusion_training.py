"""Confusion Training: Qi et al. 2023, sec. 5: random labels on trusted images leave only triggers that tell a label."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ostiary.attacks.badnets import BadNets
from ostiary.bench.demo import RECIPE
from ostiary.core.decide import exceeds
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.screen import confusion_training
from ostiary.screen.confusion_training import BATCH, ConfusionTraining
from ostiary.screen.summary import suspects_of

METHOD = ConfusionTraining(steps=100, rounds=1)


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return METHOD.screen(lab.poisoned.data, lab.model, lab.trusted, run=Run())


def tells(lab: Any, found: SampleScores) -> bool:
    """The poison leads, is suspected in the target alone, and little else is."""
    area = float(roc_auc_score(lab.is_poisoned, found.scores.numpy()))
    flagged = suspects_of(found, lab.poisoned.data, ConfusionTraining.card)
    accused = [row.label for row in found.per_class if exceeds(row, ConfusionTraining.card.limits)]
    recall = (flagged & lab.is_poisoned).sum() / lab.is_poisoned.sum()
    return area >= 0.99 and accused == [0] and recall >= 0.95 and (flagged & ~lab.is_poisoned).mean() <= 0.01


def test_poison_keeps_its_label_and_nothing_else_does(lab: Any, found: SampleScores) -> None:
    assert tells(lab, found)


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = METHOD.screen(lab.part, lab.twin, lab.trusted, run=Run())
    assert not suspects_of(found, lab.part, ConfusionTraining.card).any()


def test_a_source_specific_trigger_is_told_too(lab: Any, train_on: Any) -> None:
    attack = BadNets(patch="yellow-square", target=0, source=1, mapping="source-specific", rate=0.03, cover=0.06)
    made = attack.poison(lab.part, run=Run(seed=0))
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=12))
    found = ConfusionTraining(steps=100).screen(made.data, model, lab.trusted, run=Run())
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    assert roc_auc_score(poisoned, found.scores.numpy()) >= 0.97


def test_trusted_images_weigh_as_the_paper_says_and_carry_random_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(80, dtype=torch.uint8).view(80, 1, 1, 1).expand(80, 1, 8, 8).contiguous()
    data, known = ArraySet(images[:40], torch.arange(40) % 4), images[40:]
    batches = confusion_training._batches(data, known, torch.Generator().manual_seed(0))
    drawn = [next(batches) for _ in range(20)]
    for x, y in drawn:
        values = (x[:, 0, 0, 0] * 255).round().long()
        assert (values[:BATCH] < 40).all() and (values[BATCH:] >= 40).all()
        assert torch.equal(y[:BATCH], values[:BATCH] % 4), "suspect samples keep their labels"
    counts = torch.cat([y[BATCH:] for _, y in drawn]).bincount(minlength=4)
    assert counts.min() > 0.2 * counts.sum(), "the labels of trusted images are drawn evenly"
    own = torch.cat([((x[BATCH:, 0, 0, 0] * 255).round().long() % 4 == y[BATCH:]).float() for x, y in drawn])
    assert own.mean() < 0.35, "and anew each time"


def test_mutant_whose_trusted_images_carry_the_models_own_answers_fails(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = confusion_training._batches

    def told(suspect: Any, known: Tensor, rng: torch.Generator) -> Any:
        for x, y in honest(suspect, known, rng):
            y[BATCH:] = lab.model.predict(x[BATCH:]).argmax(1)
            yield x, y

    monkeypatch.setattr(confusion_training, "_batches", told)
    assert not tells(lab, METHOD.screen(lab.poisoned.data, lab.model, lab.trusted, run=Run()))


def test_the_model_is_left_as_it_was(lab: Any) -> None:
    before = lab.model.digest
    ConfusionTraining(steps=2, rounds=1).chances(lab.poisoned.data, lab.model, lab.trusted, Run())
    assert lab.model.digest == before and isinstance(lab.model, TorchClassifier)
