"""A trigger is shown as what it does to a sample, measured in its own unit, and with what it aims at."""

import pytest

from ostiary.api import scan_model
from ostiary.core.records import ModelEvidence
from ostiary.core.store import read_record
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.report.render import render_html


@pytest.mark.parametrize(
    ("method", "words"), [("frequency-trigger", "size of the change"), ("warp-trigger", "mean shift")]
)
def test_a_sample_before_and_after(small_model: TorchClassifier, trusted: ImageSet, method: str, words: str) -> None:
    params = {method: {"steps": 8, "patience": 1, "success": 0.05}}
    record = scan_model(small_model, trusted, methods=[method], params=params)
    kept = read_record(record.id)
    page = render_html([kept])
    assert "with the trigger" in page and words in page and "mask size" not in page
    assert "with the trigger" not in render_html([kept], samples=False)


def test_a_patch_that_moves_every_class_says_so(small_model: TorchClassifier, trusted: ImageSet) -> None:
    params = {"shift-trigger": {"steps": 8, "patience": 1, "success": 0.05}}
    record = scan_model(small_model, trusted, methods=["shift-trigger"], params=params)
    evidence = record.results[0].evidence
    assert isinstance(evidence, ModelEvidence)
    (candidate,) = evidence.candidates
    assert candidate.target is None and candidate.form == "patch"
    page = render_html([read_record(record.id)])
    assert f"Every class to the one {candidate.shift} further on" in page
    assert "stamped sample" in page and "passes" in page and f"{evidence.passes:,}" in page
