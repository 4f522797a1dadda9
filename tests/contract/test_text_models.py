"""The tables for methods that look at classifiers of texts: scanners and guards of them, screeners with one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_case import attacked, trusted
from contract_case import Case, by_id, check_class, check_json
from text_case import chat

from ostiary.core.card import Have
from ostiary.core.errors import FormatError, ModelError, NotMet
from ostiary.core.execute import execute
from ostiary.core.protocols import DataDetector, FittedGuard, Guard, ModelScanner
from ostiary.core.records import GuardEvidence, SampleEvidence
from ostiary.core.run import Run
from ostiary.guard.fitted import load_guard
from ostiary.screen.summary import summariser

SCANNERS = (
    Case(id="text.scan.dbs", tiny={"epochs": 20, "candidates": 10, "beams": 2}),
    Case(id="text.scan.few-shot-perturbation", tiny={"draws": 2, "held": 20, "steps": 5}),
)
SCREENERS = (Case(id="text.screen.bki"), Case(id="text.screen.cube"))
GUARDS = (
    Case(id="text.guard.onion"),
    Case(id="text.guard.rap", tiny={"steps": 20}),
    Case(id="text.guard.strip", tiny={"copies": 4}),
)
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


@by_id(GUARDS)
def test_a_guard_of_texts_is_whole(case: Case) -> None:
    check_class(case, Guard)
    for have in (Have(access="gradients", modality="images"), Have(access="none", modality="text")):
        result = execute(case.build(), None, None, run=case.run(), have=have, call="fit").result
        assert result.status == "skipped" and result.reason


@by_id(GUARDS)
def test_a_fit_on_texts_is_reproducible_and_leaves_its_subjects_alone(case: Case) -> None:
    model, rows = attacked(), trusted(120)
    weights, texts, state = model.digest, rows.digest, torch.get_rng_state()

    def summarise(value: FittedGuard[Any], run: Run) -> GuardEvidence:
        return GuardEvidence(threshold=value.threshold, false_rejection=value.false_rejection)

    results = []
    for _ in range(2):
        outcome = execute(case.build(), model, rows, run=case.run(), have=HAVE, summarise=summarise, call="fit")
        assert isinstance(outcome.value, FittedGuard), outcome.result.reason
        results.append(outcome.result)
    assert results[0].evidence == results[1].evidence
    assert model.digest == weights and rows.digest == texts and torch.equal(torch.get_rng_state(), state)
    check_json(results[0])


@by_id(GUARDS)
def test_a_score_is_that_of_the_text_alone(case: Case) -> None:
    """Neither the order of a batch nor the padding beside a longer text counts."""
    fitted = case.build().fit(attacked(), trusted(120), run=case.run())
    texts = [*trusted(40, seed=7).texts, "Lovely film and some of the dull story. " * 4, "warm"]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(1)).tolist()
    scores = fitted.score(attacked(), texts)
    assert scores.shape == (42,) and scores.isfinite().all() and scores.std() > 0.001
    assert torch.allclose(fitted.score(attacked(), [texts[row] for row in order]), scores[order], atol=1e-5)
    for row in (0, 40, 41):
        assert torch.allclose(fitted.score(attacked(), [texts[row]])[0], scores[row], atol=1e-5)
    assert fitted.score(attacked(), []).shape == (0,)


@by_id(GUARDS)
def test_an_answer_about_texts_is_the_models_and_the_score_the_guards(case: Case) -> None:
    fitted, texts = case.build().fit(attacked(), trusted(120), run=case.run()), list(trusted(20, seed=7).texts)
    probabilities, scores = fitted.answer(attacked(), texts)
    assert torch.allclose(probabilities, attacked().predict(texts), atol=1e-5)
    assert torch.allclose(scores, fitted.score(attacked(), texts), atol=1e-5)


@by_id(GUARDS)
def test_a_saved_guard_of_texts_scores_as_before_and_knows_its_model(case: Case, tmp_path: Path) -> None:
    fitted = case.build().fit(attacked(), trusted(120), run=case.run())
    fitted.save(tmp_path / "guard.safetensors")
    loaded, texts = load_guard(tmp_path / "guard.safetensors"), list(trusted(20, seed=7).texts)
    assert torch.equal(loaded.score(attacked(), texts), fitted.score(attacked(), texts))
    assert loaded.threshold == fitted.threshold and loaded.false_rejection == fitted.false_rejection
    loaded.check_model(attacked())
    other = attacked().clone()
    with torch.no_grad():
        next(other.module.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match="was fitted to model"):
        loaded.check_model(other)
    part = (tmp_path / "guard.safetensors").read_bytes()[:-100]
    (tmp_path / "cut.safetensors").write_bytes(part)
    with pytest.raises(FormatError):
        load_guard(tmp_path / "cut.safetensors")


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
