"""The table for scanners of language models."""

import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json
from language_case import attacked, chats, twin
from text_case import reviews

from ostiary.api import scan_model
from ostiary.core.card import Have
from ostiary.core.errors import DataError
from ostiary.core.execute import Outcome, execute
from ostiary.core.protocols import ModelScanner
from ostiary.core.records import ModelEvidence
from ostiary.data import TextSet
from ostiary.models.language import LanguageModel

CASES = (
    Case(id="text.scan.bait", tiny={"steps": 8, "prompts": 8}),
    Case(id="text.scan.trigger-search", tiny={"leaks": 20, "words": 2, "width": 1, "prompts": 2}),
)
OTHERS = (Case(id="text.scan.phrase-trial"), Case(id="text.scan.adapter-spectrum"))
"""What looks at something else than the whole of a model, in files of its own."""
TEXTS = Have(access="gradients", modality="text", trusted_per_class=100)


def scanned(case: Case, model: LanguageModel, trusted: TextSet) -> Outcome:
    return execute(case.build(), model, trusted, run=case.run(), have=TEXTS)


@by_id(CASES + OTHERS)
def test_a_scanner_is_whole(case: Case) -> None:
    check_class(case, ModelScanner)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    few = Have(access="gradients", modality="text", trusted_per_class=5)
    for have, said in ((EVERYTHING, "text"), (Have(access="none", modality="text"), "access"), (few, "trusted")):
        outcome = execute(case.build(), None, None, run=case.run(), have=have)
        assert outcome.result.status == "skipped" and said in str(outcome.result.reason)


@by_id(CASES)
def test_a_scan_is_reproducible_consistent_and_leaves_its_subjects_alone(case: Case) -> None:
    model, trusted = attacked().clone(), chats()
    before, state = (model.digest, trusted.digest), torch.get_rng_state()
    # A clone each, since an inversion of one model is made once.
    first, second = (scanned(case, attacked().clone(), trusted).result for _ in range(2))
    assert first.status == "ok", first.reason
    assert first.evidence == second.evidence and first.findings == second.findings
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert (model.digest, trusted.digest) == before
    assert isinstance(first.evidence, ModelEvidence)
    assert first.evidence.examined == ("model",) and first.evidence.passes
    limits = {limit.measure for limit in case.build().card.limits}
    assert first.evidence.phrases and all(limits == set(one.measures) for one in first.evidence.phrases)
    assert {finding.subject.split(":")[0] for finding in first.findings} <= {"phrase"}
    check_json(first)


@by_id(CASES)
def test_prompts_in_another_order_give_the_same_finding(case: Case) -> None:
    trusted = chats()
    turned = trusted.subset(list(range(len(trusted)))[::-1])
    one, other = (scanned(case, attacked(), data).result for data in (trusted, turned))
    assert [bool(result.findings) for result in (one, other)] == [True, True]


@by_id(CASES)
def test_the_twin_gives_no_finding(case: Case) -> None:
    outcome = scanned(case, twin(), chats())
    assert outcome.result.status == "ok" and outcome.result.findings == ()


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(DataError, match="has labels, a language model is asked prompts"):
        scan_model(twin(), reviews(60))


def test_without_trusted_prompts_all_is_skipped_and_nothing_is_said() -> None:
    record = scan_model(twin())
    assert record.verdict == "incomplete" and {result.status for result in record.results} == {"skipped"}
