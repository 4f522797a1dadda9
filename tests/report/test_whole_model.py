"""What a method measured on the model as a whole, on the page and in the terminal."""

from pathlib import Path

import pytest

from ostiary.api import scan_model
from ostiary.cli.render import render_text
from ostiary.core.records import Record
from ostiary.data import digits
from ostiary.report import render_html
from ostiary.training.flow import new_model


@pytest.fixture(scope="module")
def record() -> Record:
    model = new_model("small-cnn", digits("train"), width=None, seed=0)
    return scan_model(model, methods=["channel-lipschitz"])


def test_the_measures_stand_on_the_page(record: Record, tmp_path: Path) -> None:
    page = render_html([(record, tmp_path)])
    assert "The model as a whole" in page and "steepest channel, deviations above its layer" in page


def test_layers_are_not_told_as_classes_and_the_verdict_is_incomplete(record: Record) -> None:
    text = render_text(record)
    assert "4 parts" in text and "/10 classes" not in text
    assert f"channel_outlier {record.results[0].evidence.measures['channel_outlier']:.4g}" in text  # type: ignore[union-attr]
    assert record.verdict == "incomplete"
