"""Making a reference, and finding the one that fits."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ostiary.api import Options, scan_model
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.plan import plan
from ostiary.core.reference import (
    ALPHA,
    DISTANCE,
    LEAST_DISTANCE,
    LEAST_MODELS,
    MEASURE,
    Reference,
    read_reference,
)
from ostiary.data import ImageSet, digits, trusted_subset
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model, save_model
from ostiary.scan import calibration
from ostiary.scan.calibration import calibrate, null_for, shipped
from ostiary.training.flow import new_model

QUICK = ["trojan-signature", "channel-lipschitz"]


@pytest.fixture(scope="module")
def trusted() -> ImageSet:
    return trusted_subset(digits("train"), 100, 0)


@pytest.fixture(scope="module")
def models(trusted: ImageSet) -> list[TorchClassifier]:
    """Untrained nets: the weights are enough for what needs no data."""
    return [new_model("small-cnn", trusted, width=None, seed=seed) for seed in range(LEAST_MODELS + 2)]


def unused(path: Path) -> TorchClassifier:
    raise AssertionError(f"nothing to load, {path}")


def made(
    models: list[Any], trusted: ImageSet, out: Path, methods: list[str] = QUICK, **how: Any
) -> tuple[Reference, list[Any]]:
    return calibrate(models, how.get("load", unused), trusted, out, plan("scan", methods=methods), Options())


@pytest.fixture(scope="module")
def file(models: list[TorchClassifier], trusted: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "r.json"
    made(models[:LEAST_MODELS], trusted, out)
    return out


def test_a_reference_says_what_it_was_made_of(file: Path, trusted: ImageSet) -> None:
    reference = read_reference(file)
    assert (reference.arch, reference.classes, reference.input_shape) == ("small-cnn", trusted.classes, (3, 32, 32))
    assert sorted(reference.methods) == ["scan.channel-lipschitz", "scan.trojan-signature"]
    values = reference.models[0].values
    assert len(values["scan.trojan-signature"].compared) == 10
    assert len(values["scan.channel-lipschitz"].compared) == 1, "the model as a whole"


def test_a_stopped_calibration_goes_on_where_it_was(
    models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"

    def stops(path: Path) -> TorchClassifier:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made([models[0], models[1], Path("never.pt")], trusted, out, load=stops)
    assert len(read_reference(out).models) == 2, "what was finished is kept"
    created = read_reference(out).created
    reference, left = made(models[:4], trusted, out)
    assert [one.digest for one in reference.models] == [one.digest for one in models[:4]]
    assert (reference.created, left) == (created, [])


def test_models_come_from_files_too(models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path) -> None:
    save_model(models[0], tmp_path / "one.safetensors")
    reference, _ = made([tmp_path / "one.safetensors"], trusted, tmp_path / "r.json", load=load_model)
    assert reference.models[0].digest == models[0].digest and reference.models[0].name == "one.safetensors"


def test_another_kind_of_model_is_left_out_and_told(
    models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path
) -> None:
    other = new_model("wrn-16-1", trusted, width=None, seed=0)
    reference, (left,) = made([models[0], other], trusted, tmp_path / "r.json")
    assert len(reference.models) == 1
    assert "small-cnn with 10 classes of 3x32x32, this is wrn-16-1" in left.reason


def test_a_reference_is_not_mixed(models: list[TorchClassifier], trusted: ImageSet, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other methods or parameters"):
        made(models[-1:], trusted, file, ["trojan-signature"])
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(FormatError, match="is no reference"):
        made(models[-1:], trusted, tmp_path / "no.json")


def test_a_scan_is_judged_by_the_reference_and_says_so(
    models: list[TorchClassifier], trusted: ImageSet, file: Path
) -> None:
    record = scan_model(models[-1], trusted, methods=QUICK, calibration=file)
    assert record.calibration is not None
    assert (record.calibration.id, record.calibration.models) == (read_reference(file).id, LEAST_MODELS)
    assert record.calibration.false_positive_rate is not None
    assert record.calibration.false_positive_rate.n == LEAST_MODELS
    assert not [caution for caution in record.cautions if caution.code == "OS902"]
    assert record.config["limits"]["scan.trojan-signature"] == {
        MEASURE: {"low": None, "high": ALPHA},
        DISTANCE: {"low": LEAST_DISTANCE, "high": None},
    }
    signature, whole = (result.evidence for result in record.results)
    assert all(0 < row.measures[MEASURE] <= 1 for row in signature.per_class)  # type: ignore[union-attr]
    assert 0 < whole.measures[MEASURE] <= 1  # type: ignore[union-attr]


def test_a_model_with_an_edited_class_is_found_by_the_reference(
    models: list[TorchClassifier], trusted: ImageSet, file: Path
) -> None:
    odd = models[-1].clone()
    odd.module.get_submodule(odd.head_name).weight.data[4] += 1  # type: ignore[union-attr,operator]
    record = scan_model(odd, trusted, methods=["trojan-signature"], calibration=file)
    (finding,) = record.results[0].findings
    assert (finding.subject, finding.level, finding.score) == ("class:4", "suspect", 1 / (LEAST_MODELS + 1))


def test_methods_that_the_reference_does_not_know_keep_their_limits(
    models: list[TorchClassifier], trusted: ImageSet, file: Path
) -> None:
    record = scan_model(models[-1], trusted, methods=["trojan-signature", "mm-bd"], calibration=file, **SHORT)
    assert list(record.config["limits"]["scan.mm-bd"]) == ["p_value"]
    assert [caution.text for caution in record.cautions if caution.code == "OS902"] == [
        "the reference models were not scanned with scan.mm-bd as it is set here"
    ]


SHORT: dict[str, Any] = {"params": {"mm-bd": {"starts": 2, "steps": 2}}}


@pytest.mark.parametrize(
    ("arch", "methods", "kept", "error"),
    [
        ("wrn-16-1", QUICK, LEAST_MODELS, "does not fit: it was made from models of small-cnn"),
        ("small-cnn", ["mm-bd"], LEAST_MODELS, "was made without scan.mm-bd as set here"),
        ("small-cnn", QUICK, 3, "has 3 models; at least 19"),
    ],
)
def test_a_reference_that_cannot_judge_is_refused(
    arch: str, methods: list[str], kept: int, error: str, trusted: ImageSet, file: Path
) -> None:
    reference = read_reference(file)
    few = reference.model_copy(update={"models": reference.models[:kept]})
    model = new_model(arch, trusted, width=None, seed=90)
    with pytest.raises(ConfigError, match=error):
        scan_model(model, trusted, methods=methods, calibration=few)


def test_a_reference_model_never_judges_itself(
    models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path
) -> None:
    reference, _ = made(models[: LEAST_MODELS + 1], trusted, tmp_path / "r.json")
    record = scan_model(models[0], trusted, methods=QUICK, calibration=reference)
    assert record.calibration is not None and record.calibration.models == LEAST_MODELS


def test_none_asks_for_limits_within_the_model(models: list[TorchClassifier], trusted: ImageSet) -> None:
    record = scan_model(models[0], trusted, methods=["trojan-signature"], calibration="none")
    assert record.calibration is not None and record.calibration.id == "within-model"


def test_shipped_references_can_be_read_and_judge(trusted: ImageSet) -> None:
    for reference in shipped():
        assert len(reference.models) >= LEAST_MODELS
        assert len({model.digest for model in reference.models}) == len(reference.models)


@pytest.mark.parametrize("names", ["the same", "others"])
def test_a_shipped_reference_speaks_for_its_own_task_unasked(
    models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    reference, _ = made(models[:-1], trusted, tmp_path / "r.json")
    monkeypatch.setattr(calibration, "shipped", lambda: (reference,))
    classes = reference.classes if names == "the same" else tuple("abcdefghij")
    null = null_for(models[-1], plan("scan", methods=QUICK), classes, None)
    assert (null is not None) == (names == "the same")
    assert null_for(models[-1], plan("scan", methods=QUICK), classes, reference) is not None
    more = plan("scan", methods=[*QUICK, "mm-bd"])
    assert null_for(models[-1], more, classes, None) is None, "it does not know all methods"


def test_options_reach_the_methods(models: list[TorchClassifier], trusted: ImageSet, tmp_path: Path) -> None:
    options = dataclasses.replace(Options(), time_limit=0.0)
    with pytest.raises(ConfigError, match="none of the models became a reference"):
        calibrate(models[:1], unused, trusted, tmp_path / "r.json", plan("scan", methods=["mm-bd"]), options)
