"""One table for all hardened trainings."""

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json, check_skips, disagreements

from ostiary.core.execute import execute
from ostiary.core.protocols import Hardened, Hardening
from ostiary.core.records import RatesEvidence
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.harden.flow import KEEPS_LABEL, SUSPECTED_KEEPS_LABEL, measure
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, accuracy
from ostiary.training.flow import new_model

CASES = (
    Case(id="harden.abl", tiny={"tuning_epochs": 1, "epochs": 1}),
    Case(id="harden.asd", tiny={"meta": 0.3}),
    Case(id="harden.nab", tiny={"tuning_epochs": 1}),
    Case(id="harden.adversarial", tiny={"fast": True}),
    Case(id="harden.mixup"),
    Case(id="harden.cutmix"),
    Case(id="harden.dp-sgd", tiny={"clip": 4.0}),
)
BRIEF = Recipe(epochs=4, batch=64, lr=0.1, padding=1, flip=False, precision="fp32")


@pytest.fixture(scope="module")
def fresh(small_set: ImageSet) -> TorchClassifier:
    return new_model("small-cnn", small_set, width=8, seed=0)


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("harden", CASES) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, Hardening)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, None, None)


@by_id(CASES)
def test_a_copy_is_trained_and_the_subjects_are_left_alone(
    case: Case, fresh: TorchClassifier, screened: ImageSet, trusted: ImageSet
) -> None:
    before = fresh.digest, screened.take(range(len(screened))), trusted.take(range(len(trusted)))
    made: list[Any] = []
    for _ in range(2):
        state = torch.get_rng_state()
        made.append(case.build().harden(screened, fresh, trusted, BRIEF, run=case.run()))
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    one, other = made
    assert isinstance(one, Hardened)
    assert fresh.digest == before[0] and not fresh.module.training
    assert torch.equal(screened.take(range(len(screened))), before[1])
    assert torch.equal(trusted.take(range(len(trusted))), before[2])
    assert one.model.digest == other.model.digest != fresh.digest and one.selected == other.selected
    own = {tensor.data_ptr() for tensor in fresh.module.state_dict().values() if tensor.numel()}
    assert not own & {tensor.data_ptr() for tensor in one.model.module.state_dict().values() if tensor.numel()}
    assert not one.model.module.training and one.model.classes == fresh.classes
    if one.suspected is not None:
        assert one.suspected.dtype == bool and one.suspected.shape == (len(screened),)
        assert np.array_equal(one.suspected, other.suspected) and 0 < one.suspected.sum() < len(screened)


@by_id(CASES)
def test_through_execute(case: Case, fresh: TorchClassifier, small_set: ImageSet, trusted: ImageSet) -> None:
    def summarise(value: Hardened, run: Run) -> RatesEvidence:
        return measure(value, small_set, trusted, trusted, run)

    subjects = (small_set, fresh, trusted, BRIEF)
    outcome = execute(case.build(), *subjects, run=case.run(), have=EVERYTHING, summarise=summarise)
    assert outcome.result.status == "ok", outcome.result.reason
    found = outcome.result.evidence
    assert isinstance(found, RatesEvidence) and isinstance(outcome.value, Hardened)
    assert found.rates[KEEPS_LABEL].n == len(small_set) and (found.rates["accuracy"].value or 0.0) > 0.6
    assert (SUSPECTED_KEEPS_LABEL in found.rates) == (outcome.value.suspected is not None)
    assert (accuracy(outcome.value.model, trusted)) == found.rates["accuracy"]
    check_json(outcome.result)


@by_id(CASES)
def test_after_its_deadline_there_is_no_model(
    case: Case, fresh: TorchClassifier, screened: ImageSet, trusted: ImageSet
) -> None:
    run = dataclasses.replace(case.run(), deadline=time.monotonic() - 1)
    outcome = execute(case.build(), screened, fresh, trusted, BRIEF, run=run, have=EVERYTHING)
    assert outcome.result.status == "partial" and outcome.value is None
    assert "time limit" in (outcome.result.reason or "")
