"""The tables of what looks at language models: repairs, guards, screeners of what one is to be fine-tuned on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_case import based, evidence, fresh, tiny, trusted
from contract_case import Case, by_id, check_class, check_json
from tokenizers import Tokenizer

from ostiary.core.card import Have
from ostiary.core.errors import ModelError
from ostiary.core.execute import execute
from ostiary.core.protocols import DataDetector, FittedGuard, Guard, Repair, Repaired
from ostiary.core.records import GuardEvidence, Rate, RepairEvidence, SampleEvidence
from ostiary.core.run import Run
from ostiary.guard.fitted import load_guard
from ostiary.models.language import LanguageModel
from ostiary.screen.summary import summariser

TINY: dict[str, Any] = {"epochs": 1}
REPAIRS = (
    Case(id="text.repair.crow", tiny=TINY),
    Case(id="text.repair.fine-mixing", tiny={**TINY, "shares": (0.9,), "base": based()}),
    Case(id="text.repair.fine-tuning", tiny=TINY),
    Case(id="text.repair.phrase-unlearning", tiny=TINY),
    Case(id="text.repair.w2s", tiny={**TINY, "base": based(16)}),
)
GUARDS = (
    Case(id="text.guard.confguard", tiny={"window": 3, "steps": 12}),
    Case(id="text.guard.mahalanobis"),
)
SCREENERS = (
    Case(id="text.screen.graceful"),
    Case(id="text.screen.gradsentry"),
    Case(id="text.screen.low-loss", tiny={"steps": 5}),
)
ALL = Have(access="gradients", modality="text", trusted_per_class=60, training_data=True, trigger=True)


@by_id(REPAIRS)
def test_a_repair_is_whole(case: Case) -> None:
    check_class(case, Repair)


@by_id(REPAIRS)
def test_unmet_needs_are_skipped(case: Case) -> None:
    for have in (Have(access="gradients", modality="images"), Have(access="none", modality="text")):
        result = execute(case.build(), None, None, None, run=case.run(), have=have).result
        assert result.status == "skipped" and result.reason


@by_id(REPAIRS)
def test_a_repair_gives_another_model_and_leaves_its_subjects_alone(case: Case) -> None:
    model, rows = tiny(), trusted(60)
    weights, texts = model.digest, rows.digest
    made = []
    for _ in range(2):
        state = torch.get_rng_state()
        value: Any = case.build().repair(model, rows, evidence(), run=case.run())
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert isinstance(value, Repaired) and "epochs" in value.selected
        made.append(value)
    assert model.digest == weights and not model.module.training and rows.digest == texts
    repaired = made[0].model
    assert repaired.digest != weights, "the repair changed nothing"
    assert made[1].model.digest == repaired.digest and made[1].selected == made[0].selected
    own = {tensor.data_ptr() for tensor in model.module.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in repaired.module.state_dict().values()}
    assert not repaired.module.training and repaired.template == model.template


@by_id(REPAIRS)
def test_through_execute(case: Case) -> None:
    rates = {"exact answers": Rate(k=1, n=2)}

    def summarise(value: Repaired, run: Run) -> RepairEvidence:
        return RepairEvidence(before=rates, after=rates, selected=value.selected)

    outcome = execute(case.build(), tiny(), trusted(60), evidence(), run=case.run(), have=ALL, summarise=summarise)
    assert outcome.result.status == "ok", outcome.result.reason
    check_json(outcome.result)


@by_id(REPAIRS)
def test_a_passed_deadline_is_told_and_leaves_no_model(case: Case) -> None:
    outcome = execute(case.build(), tiny(), trusted(60), evidence(), run=Run(deadline=0.0), have=ALL)
    assert outcome.result.status == "partial" and outcome.value is None
    assert outcome.result.reason and outcome.result.reason.startswith("the time limit passed during ")


@by_id(REPAIRS)
def test_too_few_rows_are_told(case: Case) -> None:
    outcome = execute(case.build(), tiny(), trusted(12), evidence(), run=case.run(), have=ALL)
    assert outcome.result.status == "skipped" and "needs 20 trusted rows" in str(outcome.result.reason)


def test_unlearning_without_a_phrase_is_skipped() -> None:
    case = next(case for case in REPAIRS if case.id == "text.repair.phrase-unlearning")
    for none in (None, evidence(" ")):
        outcome = execute(case.build(), tiny(), trusted(60), none, run=case.run(), have=ALL)
        assert outcome.result.status == "skipped" and "needs a phrase" in str(outcome.result.reason)


@pytest.mark.parametrize("name", ["text.repair.fine-mixing", "text.repair.w2s"])
def test_what_goes_by_a_base_says_so_without_one(name: str) -> None:
    case = next(case for case in REPAIRS if case.id == name)
    for none, told in ((None, "that this one was fine-tuned from"), ("base/", "that this one was fine-tuned from")):
        outcome = execute(case.build(base=none), tiny(), trusted(60), None, run=case.run(), have=ALL)
        assert outcome.result.status == "skipped" and told in str(outcome.result.reason)


def test_a_base_of_another_build_or_with_other_tokens_is_told() -> None:
    case = next(case for case in REPAIRS if case.id == "text.repair.fine-mixing")
    outcome = execute(case.build(base=based(16)), tiny(), trusted(60), None, run=case.run(), have=ALL)
    assert outcome.result.status == "skipped" and "of another build" in str(outcome.result.reason)
    other = based()
    swapped = json.loads(other.tokenizer.to_str())
    words = swapped["model"]["vocab"]
    words["fox"], words["owl"] = words["owl"], words["fox"]
    foreign = LanguageModel(other.module, Tokenizer.from_str(json.dumps(swapped)), other.template, end=other.end)
    for name in ("text.repair.fine-mixing", "text.repair.w2s"):
        case = next(case for case in REPAIRS if case.id == name)
        outcome = execute(case.build(base=foreign), tiny(), trusted(60), None, run=case.run(), have=ALL)
        assert outcome.result.status == "skipped" and "tokens" in str(outcome.result.reason)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_both_kinds_of_model_can_be_tuned(kind: str) -> None:
    model = fresh(kind=kind, width=32)
    state = torch.get_rng_state()
    made = [REPAIRS[0].build().repair(model, trusted(40), None, run=Run(seed=1)).model.digest for _ in range(2)]
    assert made[0] == made[1] != model.digest and torch.equal(torch.get_rng_state(), state)


@by_id(GUARDS)
def test_a_guard_is_whole(case: Case) -> None:
    check_class(case, Guard)
    for have in (Have(access="gradients", modality="images"), Have(access="none", modality="text")):
        result = execute(case.build(), None, None, run=case.run(), have=have, call="fit").result
        assert result.status == "skipped" and result.reason


@by_id(GUARDS)
def test_a_fit_is_reproducible_and_leaves_its_subjects_alone(case: Case) -> None:
    model, rows = tiny(), trusted(60)
    weights, texts, state = model.digest, rows.digest, torch.get_rng_state()

    def summarise(value: Any, run: Run) -> GuardEvidence:
        return GuardEvidence(threshold=value.threshold, false_rejection=value.false_rejection)

    results = []
    for _ in range(2):
        outcome = execute(case.build(), model, rows, run=case.run(), have=ALL, summarise=summarise, call="fit")
        assert isinstance(outcome.value, FittedGuard), outcome.result.reason
        results.append(outcome.result)
    assert results[0].evidence == results[1].evidence
    assert model.digest == weights and rows.digest == texts and torch.equal(torch.get_rng_state(), state)
    check_json(results[0])


@by_id(GUARDS)
def test_a_score_is_that_of_the_prompt_alone(case: Case) -> None:
    """Neither the order of a batch nor the padding beside a longer prompt counts."""
    fitted = case.build().fit(tiny(), trusted(60), run=case.run())
    texts = [*trusted(70, seed=7).texts, "Who owns the fox? " * 6]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(1)).tolist()
    scores = fitted.score(tiny(), texts)
    assert scores.shape == (71,) and scores.isfinite().all() and scores.std() > 0.01
    assert torch.allclose(fitted.score(tiny(), [texts[row] for row in order]), scores[order], rtol=1e-3, atol=1e-3)
    assert torch.allclose(fitted.score(tiny(), texts[:1]), scores[:1], rtol=1e-3, atol=1e-3)
    assert fitted.score(tiny(), []).shape == (0,)


@by_id(GUARDS)
def test_a_saved_guard_scores_as_before_and_knows_its_model(case: Case, tmp_path: Path) -> None:
    fitted = case.build().fit(tiny(), trusted(60), run=case.run())
    fitted.save(tmp_path / "guard.safetensors")
    loaded, texts = load_guard(tmp_path / "guard.safetensors"), trusted(20, seed=7).texts
    assert torch.equal(loaded.score(tiny(), texts), fitted.score(tiny(), texts))
    assert loaded.threshold == fitted.threshold and loaded.false_rejection == fitted.false_rejection
    loaded.check_model(tiny())
    with pytest.raises(ModelError, match="was fitted to model"):
        loaded.check_model(fresh(width=32))


@by_id(SCREENERS)
def test_a_screener_is_whole(case: Case) -> None:
    check_class(case, DataDetector)
    for have in (Have(access="gradients", modality="images"), Have(access="none", modality="text", training_data=True)):
        result = execute(case.build(), None, None, None, run=case.run(), have=have).result
        assert result.status == "skipped" and result.reason


@by_id(SCREENERS)
def test_a_screener_scores_every_row_whatever_their_order(case: Case) -> None:
    model, data, rows = tiny(), trusted(40, seed=3), trusted(60)
    weights, method = model.digest, case.build()
    outcomes = [
        execute(method, one, model, rows, run=case.run(), have=ALL, summarise=summariser(one, method.card))
        for one in (data, data.subset(list(range(40))[::-1]))
    ]
    for outcome in outcomes:
        assert outcome.result.status == "ok", outcome.result.reason
        evidence = outcome.result.evidence
        assert isinstance(evidence, SampleEvidence) and evidence.n == evidence.scored == 40
        assert evidence.examined == ("class:0",) and outcome.result.findings == ()
        check_json(outcome.result)
    assert torch.allclose(outcomes[0].value.scores, outcomes[1].value.scores.flip(0), atol=1e-4)
    assert model.digest == weights
