"""SIG implants: Barni et al. 2019, sec. 4 (clean-label success on digits grows with the share of the class)."""

from typing import Any

import numpy as np

from ostiary.attacks.sig import Sig
from ostiary.core.run import Run

STRONG = 80 / 255
"""Digits hold what a clean-label trigger must outdo in a few black and white strokes: twice the usual strength."""


def test_the_clean_label_sinusoid_implants_and_leaves_the_twin_alone(lab: Any, train_on: Any) -> None:
    """On 89 % of the eights, 9 % of the set."""
    made = Sig(target=8, delta=STRONG, rate=0.09).poison(lab.part, run=Run())
    labels = dict(zip(made.data.ids, made.data.labels.tolist(), strict=True))
    assert {labels[identity] for identity in made.truth.poisoned} == {8}
    assert np.bincount(made.data.labels).tolist() == np.bincount(lab.part.labels).tolist(), "no label was changed"
    assert lab.implants(train_on(made.data), made.truth, success=0.6, loss=0.03)


def test_mutant_on_half_of_the_class_does_not_implant(lab: Any, train_on: Any) -> None:
    """With enough plain eights left the network has no need of the sinusoid."""
    made = Sig(target=8, delta=STRONG, rate=0.04).poison(lab.part, run=Run())
    model = train_on(made.data)
    assert lab.accuracy(model) >= 0.9 and not lab.implants(model, made.truth, success=0.6, loss=0.03)
