"""MM-BD: Wang et al. 2024, sec. 4 and 5."""

from typing import Any

import pytest

from ostiary.core.decide import decide
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.scan import mm_bd
from ostiary.scan.mm_bd import MMBD, margin


def scan(model: Any, **changes: Any) -> ModelEvidence:
    return MMBD(**{"starts": 10, "steps": 150, **changes}).scan(model, None, run=Run())


@pytest.fixture(scope="module")
def found(lab: Any) -> ModelEvidence:
    return scan(lab.model)


def test_the_target_has_the_largest_margin_and_is_the_only_finding(found: ModelEvidence) -> None:
    margins = {row.label: row.measures["margin"] for row in found.per_class}
    assert max(margins, key=lambda label: margins[label]) == 0
    findings = decide(found, MMBD.card, tuple("0123456789"))
    assert [(finding.subject, finding.level) for finding in findings] == [("class:0", "suspect")]


def test_the_twin_has_none(lab: Any) -> None:
    assert decide(scan(lab.twin), MMBD.card, tuple("0123456789")) == ()


def test_mutant_that_does_not_climb_fails(lab: Any) -> None:
    """Random images alone show no target."""
    assert decide(scan(lab.model, steps=1), MMBD.card, tuple("0123456789")) == ()


def test_mutant_that_climbs_down_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_bd, "margin", lambda logits, targets: -margin(logits, targets))
    found = scan(lab.model)
    assert decide(found, MMBD.card, tuple("0123456789")) == ()
