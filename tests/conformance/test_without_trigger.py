"""Poisoning without a trigger makes accuracy fall by ten points or more, and the mutants' does not."""

import dataclasses
from typing import Any

import pytest
import torch

from ostiary.attacks.alteration import Alteration
from ostiary.attacks.injection import Injection
from ostiary.attacks.label_flip import LabelFlip
from ostiary.attacks.truth import NONE, Poisoned
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8

SHORT = dataclasses.replace(RECIPE, epochs=4)
FALLS = 0.1


def restored(made: Poisoned) -> ArraySet:
    """The same samples under their true labels."""
    truth, data = made.truth.poisoned, made.data
    own = [truth.get(identity, int(label)) for identity, label in zip(data.ids, data.labels, strict=True)]
    return ArraySet(load_uint8(data), own, data.classes, data.ids)


@pytest.mark.parametrize(
    "attack", [LabelFlip(rate=0.4, to="next"), Injection(rate=0.45, to="next")], ids=["label-flip", "injection"]
)
def test_wrong_labels_cost_accuracy_and_true_labels_of_the_same_images_do_not(
    lab: Any, train_on: Any, attack: Any
) -> None:
    made = attack.poison(lab.part.subset(range(700)), run=Run())
    assert lab.accuracy(train_on(made.data, SHORT)) <= lab.accuracy(lab.twin) - FALLS
    assert lab.accuracy(train_on(restored(made), SHORT)) >= 0.95, "the mutant"


def test_injected_noise_is_learnt_and_costs_nothing(lab: Any, train_on: Any) -> None:
    """Under one label the network takes all noise for that class; the others it tells as before."""
    made = Injection(what="noise", rate=0.1).poison(lab.part, run=Run())
    named = torch.tensor([identity in made.truth.poisoned for identity in made.data.ids])
    assert set(made.truth.poisoned.values()) == {NONE}
    labels = torch.where(named, 3, made.data.labels)
    model = train_on(ArraySet(load_uint8(made.data), labels, made.data.classes), SHORT)
    fresh = torch.rand(100, *lab.part.shape, generator=torch.Generator().manual_seed(9))
    assert float((model.predict(fresh).argmax(1) == 3).float().mean()) >= 0.95
    assert lab.accuracy(model) >= 0.95


def test_mosaics_are_learnt_instead_of_the_digits(lab: Any, train_on: Any) -> None:
    """Yu et al. 2022, sec. 4: on CIFAR-10 accuracy falls to near chance; digits, hard strokes, take a stronger one."""
    made = Alteration(eps=16 / 255).poison(lab.part, run=Run())
    assert torch.equal(made.data.labels.bincount(), lab.part.labels.bincount()), "no label was changed"
    assert lab.accuracy(train_on(made.data, SHORT)) <= 0.5


def test_mutant_whose_mosaics_tell_nothing_costs_nothing(
    lab: Any, train_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    corners = Alteration._corners
    monkeypatch.setattr(
        Alteration, "_corners", lambda self, classes, shape, rng: corners(self, 1, shape, rng).repeat(classes, 1, 1, 1)
    )
    made = Alteration(eps=16 / 255).poison(lab.part, run=Run())
    model = train_on(made.data, SHORT)
    assert lab.accuracy(model) >= 0.8
