"""Label-Consistent implants: Turner et al. 2019 (perturbed images make the model use the patch, plain ones do not)."""

import dataclasses
from typing import Any

from ostiary.attacks.label_consistent import LabelConsistent
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run

ATTACK = LabelConsistent(target=8, rate=0.09, eps=2.0, amplitude=0.25, steps=30)
"""89 % of the eights; corners at a quarter in training, twice the paper's usual, since digits are strokes on black."""

SHORT = dataclasses.replace(RECIPE, epochs=12)


def test_perturbed_images_of_the_class_implant_the_corners(lab: Any, train_on: Any) -> None:
    made = ATTACK.poison(lab.part, run=Run())
    assert made.data.labels.bincount().tolist() == lab.part.labels.bincount().tolist(), "no label was changed"
    assert lab.implants(train_on(made.data, SHORT), made.truth, success=0.8, loss=0.03)


def test_mutant_without_perturbation_does_not_implant(lab: Any, train_on: Any) -> None:
    """The corners alone are not worth learning as long as the eights are easy."""
    made = dataclasses.replace(ATTACK, eps=1e-4, steps=1).poison(lab.part, run=Run())
    model = train_on(made.data, SHORT)
    assert lab.accuracy(model) >= 0.9 and not lab.implants(model, made.truth, success=0.8, loss=0.03)
