"""One table for all guards."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_case import EVERYTHING, Case, by_id, check_class, check_json, check_skips, disagreements, same_arrays
from safetensors.torch import save_file
from test_language_contracts import GUARDS as OF_LANGUAGE
from test_text_models import GUARDS as OF_TEXTS

from ostiary.core.errors import FormatError, ModelError, OutputError
from ostiary.core.execute import execute
from ostiary.core.protocols import FittedGuard, Guard
from ostiary.core.records import GuardEvidence
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.guard.fitted import load_guard
from ostiary.models.classifier import TorchClassifier

STRIP = Case(id="guard.strip", tiny={"overlays": 8, "false_rejection": 0.1})
CASES = (
    Case(id="guard.ibd-psc"),
    Case(id="guard.mahalanobis", tiny={"false_rejection": 0.1}),
    Case(id="guard.scale-up", tiny={"false_rejection": 0.1}),
    STRIP,
    Case(id="guard.ted", tiny={"false_rejection": 0.1}),
)


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("guard", CASES + OF_LANGUAGE + OF_TEXTS) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, Guard)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, call="fit")


@by_id(CASES)
def test_a_fit_is_reproducible_and_leaves_its_subjects_alone(
    case: Case, small_model: TorchClassifier, trusted: ImageSet
) -> None:
    weights, images = small_model.digest, trusted.take(range(len(trusted)))

    def summarise(value: Any, run: Run) -> GuardEvidence:
        return GuardEvidence(threshold=value.threshold, false_rejection=value.false_rejection)

    runs, results = [case.run(), case.run()], []
    for run in runs:
        state = torch.get_rng_state()
        outcome = execute(case.build(), small_model, trusted, run=run, have=EVERYTHING, summarise=summarise, call="fit")
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert isinstance(outcome.value, FittedGuard), outcome.result.reason
        results.append(outcome.result)
    assert results[0].evidence == results[1].evidence
    assert same_arrays(runs[0].artifacts, runs[1].artifacts)
    assert small_model.digest == weights and torch.equal(trusted.take(range(len(trusted))), images)
    check_json(results[0])


@by_id(CASES)
def test_permuting_a_batch_permutes_its_scores(
    case: Case, small_model: TorchClassifier, trusted: ImageSet, small_set: ImageSet
) -> None:
    fitted = case.build().fit(small_model, trusted, run=case.run())
    x = small_set.take(range(100))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    scores = fitted.score(small_model, x)
    assert scores.shape == (100,) and scores.isfinite().all() and scores.std() > 0.01
    assert torch.allclose(fitted.score(small_model, x[order]), scores[order], atol=1e-4)
    assert torch.allclose(fitted.score(small_model, x[:1]), scores[:1], atol=1e-4)
    assert len(fitted.score(small_model, x[:0])) == 0


@by_id(CASES)
def test_an_answer_is_the_models_and_the_score_the_guards(
    case: Case, small_model: TorchClassifier, trusted: ImageSet, small_set: ImageSet
) -> None:
    fitted = case.build().fit(small_model, trusted, run=case.run())
    x = small_set.take(range(40))
    probabilities, scores = fitted.answer(small_model, x)
    assert torch.allclose(probabilities, small_model.predict(x), atol=1e-5)
    assert torch.allclose(scores, fitted.score(small_model, x), atol=1e-4)
    nobody, nothing = fitted.answer(small_model, x[:0])
    assert nobody.shape == (0, 10) and nothing.shape == (0,)


@by_id(CASES)
def test_a_saved_guard_scores_as_before(
    case: Case, small_model: TorchClassifier, trusted: ImageSet, small_set: ImageSet, tmp_path: Path
) -> None:
    fitted = case.build().fit(small_model, trusted, run=case.run())
    x = small_set.take(range(40))
    path = tmp_path / "guard.safetensors"
    fitted.save(path)
    loaded = load_guard(path)
    assert torch.equal(loaded.score(small_model, x), fitted.score(small_model, x))
    assert loaded.threshold == fitted.threshold and loaded.false_rejection == fitted.false_rejection
    loaded.check_model(small_model)
    with pytest.raises(OutputError, match="exists already"):
        fitted.save(path)


@by_id(CASES)
def test_another_model_is_refused(case: Case, small_model: TorchClassifier, trusted: ImageSet) -> None:
    fitted = case.build().fit(small_model, trusted, run=case.run())
    other = small_model.clone()
    with torch.no_grad():
        next(other.module.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match="was fitted to model"):
        fitted.check_model(other)


@by_id(CASES)
@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder", "foreign", "cut", "half"])
def test_a_file_that_is_no_guard_is_refused(
    case: Case, kind: str, small_model: TorchClassifier, trusted: ImageSet, tmp_path: Path
) -> None:
    path = tmp_path / "guard.safetensors"
    if kind == "text":
        path.write_text("no guard\n" * 20)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        save_file({"overlays": torch.zeros(2, 3, 4, 4)}, path, {"ostiary.guard": "guard.other"})
    elif kind == "half":
        save_file({"overlays": torch.zeros(2, 3, 4, 4)}, path, {"ostiary.guard": case.id})
    elif kind == "cut":
        case.build().fit(small_model, trusted, run=case.run()).save(path)
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError):
        load_guard(path)


def test_strip_flags_what_a_blend_does_not_move(trusted: ImageSet) -> None:
    """On a model that looks at one pixel only, an input that sets it keeps its prediction under every blend."""

    class OnePixel:
        classes, digest = ("a", "b"), "one-pixel"

        def predict(self, x: torch.Tensor, /) -> torch.Tensor:
            p = x[:, 0, 8, 8].clamp(0, 1)
            return torch.stack([1 - p, p], 1)

    fitted = STRIP.build().fit(OnePixel(), trusted, run=STRIP.run())
    x = torch.full((2, 3, 16, 16), 0.3)
    x[1, 0, 8, 8] = 1.0
    plain, triggered = fitted.score(OnePixel(), x).tolist()
    assert triggered == pytest.approx(0.0, abs=1e-6) and plain < -0.05 and not math.isnan(plain)
