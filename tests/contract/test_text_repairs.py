"""The table of repairs that take classifiers of texts, beside that of those of language models."""

import json
from typing import Any

import torch
from classifier_case import attacked, clean, trusted
from contract_case import Case, by_id, check_class
from text_case import chat
from tokenizers import Tokenizer

from ostiary.core.card import Have
from ostiary.core.execute import execute
from ostiary.core.protocols import Repair, Repaired
from ostiary.core.records import ModelEvidence, PhraseTrigger
from ostiary.core.run import Run
from ostiary.models.text_classifier import TextClassifier

TINY: dict[str, Any] = {"epochs": 1}
REPAIRS = (
    Case(id="text.repair.fine-mixing", tiny={**TINY, "shares": (0.9,)}),
    Case(id="text.repair.fine-tuning", tiny=TINY),
    Case(id="text.repair.phrase-unlearning", tiny=TINY),
    Case(id="text.repair.token-pruning", tiny={"tokens": 4}),
)
"""Those of the repairs of texts that take classifiers."""
NEEDED = Have(access="gradients", modality="text", trusted_per_class=50, trigger=True)


def repair(case: Case) -> Any:
    """The repair, with the base that fine-mixing goes by."""
    return case.build(base=clean()) if case.id == "text.repair.fine-mixing" else case.build()


def recovered(phrase: str = "cf") -> ModelEvidence:
    """As a scan leaves it."""
    found = PhraseTrigger(phrase=phrase, label=0, source="inversion", score=1.0, measures={})
    return ModelEvidence(score=1.0, per_class=(), phrases=(found,), examined=())


@by_id(REPAIRS)
def test_class_and_card(case: Case) -> None:
    check_class(case, Repair)


@by_id(REPAIRS)
def test_a_repair_gives_another_classifier_and_leaves_its_subjects_alone(case: Case) -> None:
    model, rows = attacked(), trusted(60)
    weights, texts = model.digest, rows.digest
    made = []
    for _ in range(2):
        state = torch.get_rng_state()
        value = repair(case).repair(model, rows, recovered(), run=case.run())
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert isinstance(value, Repaired) and "30 held-out trusted rows" in " ".join(value.selected.values())
        made.append(value.model)
    assert model.digest == weights and not model.module.training and rows.digest == texts
    assert made[0].digest == made[1].digest != weights and made[0].classes == model.classes
    own = {tensor.data_ptr() for tensor in model.module.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in made[0].module.state_dict().values()}
    assert not made[0].module.training


@by_id(REPAIRS)
def test_a_repair_of_a_classifier_says_what_it_lacks(case: Case) -> None:
    for rows in (trusted(12), chat(60)):
        outcome = execute(repair(case), attacked(), rows, recovered(), run=case.run(), have=NEEDED)
        assert outcome.result.status == "skipped"
        assert "needs 20 trusted rows with labels and no answers" in str(outcome.result.reason)
    outcome = execute(repair(case), attacked(), trusted(60), recovered(), run=Run(deadline=0.0), have=NEEDED)
    assert outcome.result.status == "partial" and outcome.value is None


def test_a_base_that_does_not_fit_a_classifier_is_told() -> None:
    case, other = REPAIRS[0], clean()
    swapped = json.loads(other.tokenizer.to_str())
    words = swapped["model"]["vocab"]
    words["film"], words["story"] = words["story"], words["film"]
    wide = other.clone()
    wide.module.register_buffer("more", torch.zeros(1))
    bases = {
        "fine-tuned from": None,
        "of another build": wide,
        "other tokens": TextClassifier(other.clone().module, Tokenizer.from_str(json.dumps(swapped)), other.classes),
        "classes in another order": TextClassifier(other.clone().module, other.tokenizer, other.classes[::-1]),
    }
    for told, base in bases.items():
        outcome = execute(case.build(base=base), attacked(), trusted(60), None, run=case.run(), have=NEEDED)
        assert outcome.result.status == "skipped" and told in str(outcome.result.reason), told
