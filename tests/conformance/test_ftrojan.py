"""FTrojan implants: Wang et al. 2022, table 2 (success of 99 % and more, accuracy as without it)."""

import dataclasses
from typing import Any

from ostiary.attacks.ftrojan import FTrojan
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run


def test_two_frequencies_implant_and_leave_the_twin_alone(lab: Any, train_on: Any) -> None:
    made = FTrojan().poison(lab.part, run=Run())
    assert lab.implants(train_on(made.data, dataclasses.replace(RECIPE, epochs=12)), made.truth)


def test_mutant_without_the_frequencies_does_not_implant(lab: Any, train_on: Any) -> None:
    truth = FTrojan().poison(lab.part, run=Run()).truth
    made = FTrojan(magnitude=1e-3).poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(model) >= 0.8 and not lab.implants(model, truth)
