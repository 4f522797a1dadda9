"""The tables for methods that look at classifiers of texts: scanners of them."""

import dataclasses

import pytest
import torch
from classifier_case import attacked, trusted
from contract_case import Case, by_id, check_class, check_json

from ostiary.core.card import Have
from ostiary.core.errors import NotMet
from ostiary.core.execute import execute
from ostiary.core.protocols import ModelScanner

SCANNERS = (Case(id="text.scan.dbs", tiny={"epochs": 20, "candidates": 10, "beams": 2}),)
HAVE = Have(access="gradients", modality="text", trusted_per_class=50)


@by_id(SCANNERS)
def test_a_scanner_is_whole(case: Case) -> None:
    check_class(case, ModelScanner)


@by_id(SCANNERS)
def test_a_scan_of_texts_is_reproducible_and_leaves_its_subjects_alone(case: Case) -> None:
    model, digest, state = attacked(), attacked().digest, torch.get_rng_state()
    first, second = (
        execute(case.build(), model, trusted(), run=case.run(), have=HAVE, classes=model.classes).result
        for _ in range(2)
    )
    assert first.status == "ok", first.reason
    assert first.evidence == second.evidence and first.findings == second.findings
    assert model.digest == digest and torch.equal(torch.get_rng_state(), state)
    assert first.examined == ("class:0", "class:1")
    check_json(first)


@by_id(SCANNERS)
def test_a_scan_of_texts_out_of_time_is_partial(case: Case) -> None:
    run = dataclasses.replace(case.run(), deadline=0.0)
    result = execute(case.build(), attacked(), trusted(), run=run, have=HAVE, classes=attacked().classes).result
    assert result.status == "partial" and not result.findings


@by_id(SCANNERS)
def test_a_scan_of_texts_says_what_it_lacks(case: Case) -> None:
    with pytest.raises(NotMet):
        case.build().scan(attacked(), None, run=case.run())
    poor = dataclasses.replace(HAVE, trusted_per_class=3)
    result = execute(case.build(), attacked(), trusted(), run=case.run(), have=poor).result
    assert result.status == "skipped" and "needs 20 trusted samples" in str(result.reason)
