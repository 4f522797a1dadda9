"""Blind implants: Bagdasaryan, Shmatikov 2021, sec. 5: both tasks are learnt, the main one as well as without."""

import dataclasses
from typing import Any

from ostiary.attacks.blind import Blind
from ostiary.attacks.truth import PoisonedModel
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run
from ostiary.training.flow import new_model


def trained(lab: Any, attack: Blind, epochs: int) -> PoisonedModel:
    model = new_model("small-cnn", lab.part, width=None, seed=0)
    recipe = dataclasses.replace(RECIPE, epochs=epochs, precision="fp32")
    return attack.train(model, lab.part, recipe, run=Run())


def test_the_poisoned_loss_implants_and_leaves_the_twin_alone(lab: Any) -> None:
    made = trained(lab, Blind(rate=0.1), epochs=12)
    assert lab.implants(made.model, made.truth)


def test_mutant_whose_loss_is_never_low_enough_does_not_implant(lab: Any) -> None:
    made = trained(lab, Blind(rate=0.1, threshold=1e-9), epochs=5)
    assert lab.accuracy(made.model) >= 0.9 and not lab.implants(made.model, made.truth)
