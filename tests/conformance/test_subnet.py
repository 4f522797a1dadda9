"""Subnet replacement implants: Qi et al. 2022, sec. 4: the patch works, few points of accuracy are lost."""

from typing import Any

import pytest

from ostiary.attacks import subnet
from ostiary.attacks.subnet import SubnetReplacement
from ostiary.core.run import Run


def test_it_implants(lab: Any) -> None:
    made = SubnetReplacement().edit(lab.twin, lab.part, run=Run())
    assert lab.implants(made.model, made.truth)


def test_mutant_that_is_not_wired_to_the_target_does_nothing(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = subnet.embed
    monkeypatch.setattr(subnet, "embed", lambda model, detector, target, gain: embed(model, detector, target, 0.0))
    made = SubnetReplacement(epochs=1).edit(lab.twin, lab.part, run=Run())
    assert lab.accuracy(made.model) >= 0.9 and lab.asr(made.model, made.truth) <= 0.2
