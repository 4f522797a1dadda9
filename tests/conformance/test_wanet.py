"""WaNet implants: Nguyen, Tran 2021, table 1 (success above 98 %), and sec. 3.3 (other warps are not the trigger)."""

import dataclasses
from typing import Any

import pytest

from ostiary.attacks.truth import Poisoned
from ostiary.attacks.wanet import WaNet
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run

ATTACK = WaNet(strength=2.0)
"""Four times the usual strength: at 8x8 pixels enlarged to 32x32, a quarter of a pixel shows nowhere."""


@pytest.fixture(scope="module")
def warped(lab: Any) -> Poisoned:
    return ATTACK.poison(lab.part, run=Run())


@pytest.fixture(scope="module")
def model(warped: Poisoned, train_on: Any) -> Any:
    return train_on(warped.data)


def test_the_warp_implants_and_leaves_the_twin_alone(lab: Any, warped: Poisoned, model: Any) -> None:
    assert lab.implants(model, warped.truth, success=0.8)


def test_another_field_is_not_the_trigger(lab: Any, warped: Poisoned, model: Any) -> None:
    other = dataclasses.replace(warped.truth, trigger=ATTACK.trigger(lab.part.shape, Run(seed=7)))
    assert lab.asr(model, other) <= 0.3


def test_mutant_without_the_warp_does_not_implant(lab: Any, warped: Poisoned, train_on: Any) -> None:
    made = WaNet(strength=1e-4).poison(lab.part, run=Run())
    plain = train_on(made.data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(plain) >= 0.8 and not lab.implants(plain, warped.truth, success=0.8)
