"""One table for all model scanners."""

import copy
import dataclasses

import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json, check_skips, disagreements, same_arrays
from test_language_scanners import CASES as OF_LANGUAGE
from test_language_scanners import OTHERS
from test_text_models import SCANNERS as OF_TEXTS
from torch import Tensor, nn

from ostiary.core.execute import execute
from ostiary.core.protocols import ModelScanner
from ostiary.core.records import ModelEvidence
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.forms import lay_over, with_arrays

CASES = (
    Case(id="scan.neural-cleanse", tiny={"steps": 24, "batch": 16, "patience": 1, "success": 0.5}),
    Case(id="scan.frequency-trigger", tiny={"steps": 24, "patience": 1, "success": 0.5}),
    Case(id="scan.warp-trigger", tiny={"steps": 24, "patience": 1, "success": 0.05}),
    Case(id="scan.shift-trigger", whole=True, tiny={"steps": 24, "patience": 1, "success": 0.05}),
    Case(id="scan.pair-trigger", tiny={"steps": 8, "patience": 1, "success": 0.05}),
    Case(id="scan.trojan-signature", instant=True),
    Case(id="scan.channel-lipschitz", instant=True, whole=True),
    Case(id="scan.b3d", tiny={"steps": 40, "samples": 8, "lr": 0.3, "density": 0.6, "success": 0.02}),
    Case(id="scan.mm-bd", tiny={"starts": 3, "steps": 5}),
)


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("scan", CASES + OF_LANGUAGE + OTHERS + OF_TEXTS) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, ModelScanner)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None)


@by_id(CASES)
def test_a_scan_is_reproducible_and_leaves_its_subjects_alone(
    case: Case, small_model: TorchClassifier, trusted: ImageSet
) -> None:
    weights, images = small_model.digest, trusted.take(range(len(trusted)))
    outcomes, runs = [], [case.run(), case.run()]
    for run in runs:
        state = torch.get_rng_state()
        outcomes.append(
            execute(case.build(), small_model, trusted, run=run, have=EVERYTHING, classes=small_model.classes)
        )
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    first, second = (outcome.result for outcome in outcomes)
    assert first.status == "ok", first.reason
    assert first.evidence == second.evidence and first.findings == second.findings
    assert same_arrays(runs[0].artifacts, runs[1].artifacts)
    assert small_model.digest == weights and not small_model.module.training
    assert torch.equal(trusted.take(range(len(trusted))), images)
    assert all(weight.requires_grad for weight in small_model.module.parameters())
    check_json(first)


def check_whole(case: Case, evidence: ModelEvidence) -> None:
    """No classes; a trigger is one of the whole model; every limit rests on a measure of the model."""
    assert evidence.score is not None and not evidence.per_class
    assert {(one.subject, one.target) for one in evidence.candidates} <= {("model", None)}
    assert evidence.examined and not any(subject.startswith("class:") for subject in evidence.examined)
    assert {limit.measure for limit in case.build().card.limits} <= set(evidence.measures)


@by_id(CASES)
def test_evidence_is_consistent(case: Case, small_model: TorchClassifier, trusted: ImageSet) -> None:
    run, images = case.run(), trusted.take(range(len(trusted)))
    evidence = case.build().scan(small_model, trusted, run=run)
    assert isinstance(evidence, ModelEvidence)
    if case.whole:
        check_whole(case, evidence)
        return
    assert [row.label for row in evidence.per_class] == list(range(10))
    scored = {f"class:{row.label}" for row in evidence.per_class if row.score is not None}
    assert len(scored) >= 3
    # What costs nothing accuses, but clears no class.
    assert not scored & set(evidence.examined) if case.instant else scored <= set(evidence.examined)
    scores = [row.score for row in evidence.per_class if row.score is not None]
    assert evidence.score == max(scores), "the score of the whole is the most suspicious class's: higher is worse"
    ranks = [candidate.score for candidate in evidence.candidates]
    assert ranks == sorted(ranks, key=lambda score: -(score or 0.0))
    measured = set().union(*(row.measures for row in evidence.per_class))
    for limit in case.build().card.limits:
        assert limit.measure in measured, f"the limit on '{limit.measure}' rests on nothing that is measured"
    for candidate in evidence.candidates:
        if candidate.form == "patch":
            assert candidate.mask is not None and candidate.pattern is not None
            assert candidate.mask.min() >= 0 and candidate.mask.max() <= 1
            assert f"{candidate.artifact}-mask" in run.artifacts and f"{candidate.artifact}-pattern" in run.artifacts
        else:
            shown = run.artifacts[f"{candidate.artifact}-triggered"]
            sample = torch.from_numpy(run.artifacts[f"{candidate.artifact}-sample"])
            assert shown.shape == (10, *sample.shape)
            read_back = with_arrays(candidate.model_copy(update={"parts": ()}), run.artifacts.__getitem__)
            assert torch.allclose(
                lay_over(sample[None], read_back)[0], torch.from_numpy(shown[candidate.row]), atol=1e-5
            )
        n = candidate.flip_held_out.n + candidate.flip_search.n
        if candidate.source is None:
            assert n == int((trusted.labels != candidate.target).sum())
        else:  # images of one class, by the model's own answers
            assert n == int((small_model.predict(images).argmax(1) == candidate.source).sum())


@by_id(CASES)
def test_a_passed_deadline_gives_partial_coverage(case: Case, small_model: TorchClassifier, trusted: ImageSet) -> None:
    run = dataclasses.replace(case.run(), deadline=0.0)
    result = execute(case.build(), small_model, trusted, run=run, have=EVERYTHING, classes=small_model.classes).result
    if case.instant:
        assert result.status == "ok" and result.examined
        return
    assert result.status == "partial" and (result.reason or "").startswith("the time limit ")
    assert len(result.examined) < 10 and not result.findings


class OwnNormalisation(nn.Module):
    """As a user may bring it: the mean is a plain attribute, which no cast reaches."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.mean = inner, torch.tensor([0.5, 0.5, 0.5]).view(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x - self.mean)
        return found


@by_id(CASES)
def test_a_model_with_constants_in_fp32_is_scanned(case: Case, small_model: TorchClassifier, trusted: ImageSet) -> None:
    module = OwnNormalisation(copy.deepcopy(small_model.module))
    model = TorchClassifier(module, small_model.classes, small_model.input_shape)
    outcome = execute(case.build(), model, trusted, run=case.run(), have=EVERYTHING, classes=model.classes)
    assert outcome.result.status == "ok", outcome.result.reason
