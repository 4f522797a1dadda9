"""A trigger without a mask is shown as what it makes of a sample, and measured in its own unit."""

import pytest

from ostiary.api import scan_model
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
