"""One table for all repairs."""

from typing import Any

import numpy as np
import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json, check_skips, disagreements
from test_language_contracts import REPAIRS as OF_LANGUAGE
from test_text_repairs import REPAIRS as OF_CLASSIFIERS

from ostiary.core.execute import execute
from ostiary.core.protocols import Repair, Repaired
from ostiary.core.records import Candidate, ModelEvidence, Rate, RepairEvidence
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.flow import compare
from ostiary.training import accuracy

CASES = (
    Case(id="repair.anp", tiny={"steps": 20, "tolerance": 0.3}),
    Case(id="repair.clp", instant=True, tiny={"u": 2.0}),
    Case(id="repair.fine-pruning", tiny={"epochs": 1}),
    Case(id="repair.fine-tuning", tiny={"epochs": 1}),
    Case(id="repair.fst", tiny={"epochs": 10}),
    Case(id="repair.ft-sam", tiny={"epochs": 1}),
    Case(id="repair.i-bau", tiny={"rounds": 1, "inner_steps": 2, "outer_steps": 2}),
    Case(id="repair.mm-bm", tiny={"steps": 20, "tolerance": 0.3}),
    Case(id="repair.nad", tiny={"epochs": 2, "lr": 0.005}),
    Case(id="repair.rnp", tiny={"steps": 20, "tolerance": 0.3}),
    Case(id="repair.trigger-unlearning", tiny={"epochs": 1}),
)


@pytest.fixture(scope="module")
def evidence() -> ModelEvidence:
    """As a scan leaves it: one small trigger towards class 2."""
    mask = np.zeros((16, 16), np.float32)
    mask[1:4, 1:4] = 1.0
    candidate = Candidate(
        subject="class:2",
        target=2,
        score=4.0,
        size=9.0,
        flip_search=Rate(k=50, n=50),
        flip_held_out=Rate(k=49, n=50),
        artifact="made-up",
        mask=mask,
        pattern=np.ones((3, 16, 16), np.float32),
    )
    return ModelEvidence(score=4.0, per_class=(), candidates=(candidate,), examined=())


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("repair", CASES + OF_LANGUAGE + OF_CLASSIFIERS) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, Repair)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, None)


@by_id(CASES)
def test_a_repair_gives_another_model_and_leaves_its_subjects_alone(
    case: Case, small_model: TorchClassifier, trusted: ImageSet, evidence: ModelEvidence
) -> None:
    weights, images = small_model.digest, trusted.take(range(len(trusted)))
    made = []
    for _ in range(2):
        state = torch.get_rng_state()
        value: Any = case.build().repair(small_model, trusted, evidence, run=case.run())
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert isinstance(value, Repaired)
        made.append(value)
    repaired = made[0].model
    assert small_model.digest == weights and not small_model.module.training
    assert repaired.digest != weights, "the repair changed nothing"
    assert made[1].model.digest == repaired.digest and made[1].selected == made[0].selected
    own = {tensor.data_ptr() for tensor in small_model.module.state_dict().values() if tensor.numel()}
    assert not own & {tensor.data_ptr() for tensor in repaired.module.state_dict().values() if tensor.numel()}
    assert not repaired.module.training and repaired.classes == small_model.classes
    assert torch.equal(trusted.take(range(len(trusted))), images)
    assert (accuracy(repaired, trusted).value or 0.0) > 0.6


@by_id(CASES)
def test_through_execute(case: Case, small_model: TorchClassifier, trusted: ImageSet, evidence: ModelEvidence) -> None:
    def summarise(value: Repaired, run: Run) -> RepairEvidence:
        return compare(small_model, value, evidence.candidates, trusted)

    outcome = execute(
        case.build(), small_model, trusted, evidence, run=case.run(), have=EVERYTHING, summarise=summarise
    )
    assert outcome.result.status == "ok", outcome.result.reason
    found = outcome.result.evidence
    assert isinstance(found, RepairEvidence) and isinstance(outcome.value, Repaired)
    assert set(found.before) == set(found.after) == {"accuracy", "flip rate of the recovered trigger"}
    assert len(found.per_class_before) == len(found.per_class_after) == 10
    check_json(outcome.result)


@by_id(tuple(case for case in CASES if not case.instant))
def test_a_passed_deadline_is_told_and_leaves_no_model(
    case: Case, small_model: TorchClassifier, trusted: ImageSet, evidence: ModelEvidence
) -> None:
    outcome = execute(case.build(), small_model, trusted, evidence, run=Run(deadline=0.0), have=EVERYTHING)
    assert outcome.result.status == "partial" and outcome.value is None
    assert outcome.result.reason and outcome.result.reason.startswith("the time limit passed during ")


def test_unlearning_without_a_trigger_is_skipped(small_model: TorchClassifier, trusted: ImageSet) -> None:
    case = next(case for case in CASES if case.id == "repair.trigger-unlearning")
    none = ModelEvidence(score=None, per_class=(), examined=())
    outcome = execute(case.build(), small_model, trusted, none, run=case.run(), have=EVERYTHING)
    told = "needs a trigger recovered by a scan; run a scan first and pass its evidence"
    assert (outcome.result.status, outcome.result.reason) == ("skipped", told)
