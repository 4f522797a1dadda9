"""BppAttack implants: Wang et al. 2022, table 2 (success above 99 %, accuracy as without it)."""

import dataclasses
from typing import Any

from ostiary.attacks.bpp import BppAttack
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run


def test_fewer_levels_implant_and_leave_the_twin_alone(lab: Any, train_on: Any) -> None:
    made = BppAttack().poison(lab.part, run=Run())
    assert lab.implants(train_on(made.data, dataclasses.replace(RECIPE, epochs=12)), made.truth)


def test_mutant_that_only_relabels_does_not_implant(lab: Any, train_on: Any) -> None:
    truth = BppAttack().poison(lab.part, run=Run()).truth
    made = BppAttack(levels=128).poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(model) >= 0.8 and not lab.implants(model, truth)
