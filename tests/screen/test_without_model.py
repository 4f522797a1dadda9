"""Screening before there is a model: none is trained, none is recorded, and the record says so."""

from pathlib import Path

import pytest
import torch

from ostiary.api import screen_data
from ostiary.cli.render import render_text
from ostiary.core.errors import DataError
from ostiary.core.records import Record
from ostiary.data import ArraySet, ImageSet, digits, load_uint8, trusted_subset
from ostiary.report import render_html, render_markdown
from ostiary.training import quick

ALONE = "screen.label-conflicts"


@pytest.fixture(scope="module")
def data() -> ImageSet:
    return trusted_subset(digits("train"), 300, seed=0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the sets that a quick model was trained on, for one step."""
    sizes: list[int] = []
    honest = quick.quick_model

    def counted(data: ImageSet, run: object) -> object:
        sizes.append(len(data))
        return honest(data, run)

    monkeypatch.setattr(quick, "quick_model", counted)
    monkeypatch.setattr(quick, "STEPS", 1)
    return sizes


def test_no_model_is_trained_and_the_record_holds_none(data: ImageSet, trained: list[int]) -> None:
    record = screen_data(data, methods=[ALONE])
    assert trained == [] and record.coverage.ok == (ALONE,) and record.data_alone
    assert record.config["model"] is None and list(record.digests) == ["data"]
    assert record.cautions == () and record.verdict == "none-found"
    assert record.coverage.classes == data.classes
    assert Record.model_validate_json(record.to_json()) == record
    assert "no model looked at" in render_text(record)
    assert "no model looked at" in render_markdown([record])
    assert "none: the data alone were looked at" in render_html([(record, Path())])


def test_trusted_samples_are_recorded_and_no_accuracy_is_measured_on_them(data: ImageSet, trained: list[int]) -> None:
    record = screen_data(data, trusted=trusted_subset(digits("test"), 40, seed=0), methods=[ALONE])
    assert trained == [] and list(record.digests) == ["data", "trusted"]
    assert "trusted_accuracy" not in record.config
    assert [caution.code for caution in record.cautions] == ["OS901"]


def test_trusted_samples_of_another_task_are_refused(data: ImageSet) -> None:
    small = ArraySet(torch.zeros(20, 3, 16, 16, dtype=torch.uint8), torch.arange(20) % 10, data.classes)
    turned = ArraySet(load_uint8(data), data.labels, data.classes[::-1])
    for other, what in ((small, "images"), (turned, "classes")):
        with pytest.raises(DataError, match=f"has {what}"):
            screen_data(data, trusted=other, methods=[ALONE])


def test_a_method_that_needs_a_model_has_one_trained_for_all(data: ImageSet, trained: list[int]) -> None:
    record = screen_data(data, methods=[ALONE, "screen.spectral-signatures"])
    assert trained == [len(data)] and not record.data_alone
    assert [caution.code for caution in record.cautions] == ["OS908"]


def test_to_train_anew_a_model_to_compare_with_is_trained(data: ImageSet, trained: list[int], tmp_path: Path) -> None:
    record = screen_data(data, methods=[ALONE], retrain=tmp_path / "new.safetensors")
    assert trained == [len(data)] and [caution.code for caution in record.cautions] == ["OS908", "OS915"]


def test_a_model_that_is_given_is_recorded(data: ImageSet) -> None:
    model = quick.quick_model(data.subset(range(64)), run=quick.Run())
    record = screen_data(data, model, methods=[ALONE])
    assert record.digests["model"] == model.digest and not record.data_alone
