"""The tables for methods that look at classifiers of texts: scanners of them, and screeners with one of the set."""

import dataclasses

import pytest
import torch
from classifier_case import attacked, trusted
from contract_case import Case, by_id, check_class, check_json
from text_case import chat

from ostiary.core.card import Have
from ostiary.core.errors import NotMet
from ostiary.core.execute import execute
from ostiary.core.protocols import DataDetector, ModelScanner
from ostiary.core.records import SampleEvidence
from ostiary.screen.summary import summariser

SCANNERS = (Case(id="text.scan.dbs", tiny={"epochs": 20, "candidates": 10, "beams": 2}),)
SCREENERS = (Case(id="text.screen.bki"), Case(id="text.screen.cube"))
HAVE = Have(access="gradients", modality="text", trusted_per_class=50, training_data=True)


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


@by_id(SCREENERS)
def test_a_screener_with_a_classifier_is_whole(case: Case) -> None:
    check_class(case, DataDetector)
    for have in (Have(access="gradients", modality="images"), Have(access="none", modality="text", training_data=True)):
        result = execute(case.build(), None, None, None, run=case.run(), have=have).result
        assert result.status == "skipped" and result.reason
    with pytest.raises(NotMet, match="answers"):
        case.build().screen(chat(60), attacked(), None, run=case.run())


@by_id(SCREENERS)
def test_a_screener_with_a_classifier_scores_every_row_whatever_their_order(case: Case) -> None:
    model, data, digest, state = attacked(), trusted(60), attacked().digest, torch.get_rng_state()
    outcomes = [
        execute(
            case.build(),
            one,
            model,
            None,
            run=case.run(),
            have=HAVE,
            classes=data.classes,
            summarise=summariser(one, case.build().card),
        )
        for one in (data, data.subset(list(range(60))[::-1]))
    ]
    for outcome in outcomes:
        assert outcome.result.status == "ok", outcome.result.reason
        evidence = outcome.result.evidence
        assert isinstance(evidence, SampleEvidence) and evidence.n == evidence.scored == 60
        assert evidence.examined == ("class:0", "class:1")
        check_json(outcome.result)
    assert torch.allclose(outcomes[0].value.scores, outcomes[1].value.scores.flip(0), atol=1e-4)
    assert model.digest == digest and torch.equal(torch.get_rng_state(), state)


@by_id(SCREENERS)
def test_a_screener_with_a_classifier_out_of_time_is_partial(case: Case) -> None:
    run = dataclasses.replace(case.run(), deadline=0.0)
    result = execute(case.build(), trusted(60), attacked(), None, run=run, have=HAVE).result
    assert result.status == "partial" and not result.findings
