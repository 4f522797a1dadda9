"""The repair verb: what is refused, what is written, and what few images cannot tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ostiary import repair_model
from ostiary.core.card import Have
from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.records import Candidate, ClassScore, Finding, MethodResult, ModelEvidence, Rate, Record
from ostiary.core.reference import DISTANCE, MEASURE
from ostiary.core.run import Run
from ostiary.core.store import RunFolder
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.repair import fine_tuning, flow
from ostiary.repair.checks import too_many
from ostiary.repair.flow import choice, gentler
from ostiary.training import Recipe, accuracy, train

NC = "scan.neural-cleanse"


@pytest.mark.parametrize(
    ("lost", "n", "max_loss", "refused"),
    [
        (-3, 34, 2.0, False),
        (2, 34, 2.0, False),
        (3, 34, 2.0, True),
        (25, 1000, 2.0, False),
        (30, 1000, 2.0, True),
        (0, 100, 0.0, False),
        (1, 100, 0.0, True),
        (100, 100, 100.0, False),
    ],
)
def test_a_loss_is_too_much_when_chance_does_not_explain_it(lost: int, n: int, max_loss: float, refused: bool) -> None:
    assert too_many(lost, n, max_loss) is refused


@pytest.mark.parametrize(
    ("method", "params", "hint"),
    [
        ("clp", {}, "prune less, as in --set clp.u=4"),
        ("clp", {"u": 4.0}, "prune less, as in --set clp.u=5"),
        ("anp", {}, "change less, as in --set anp.tolerance=0.01"),
        ("mm-bm", {}, "change less, as in --set mm-bm.tolerance=0.01"),
        ("nad", {}, "try a lower rate, as in --set nad.lr=0.02"),
        ("i-bau", {}, "try a lower rate, as in --set i-bau.lr=0.0003"),
    ],
)
def test_a_refusal_says_what_to_set_below_what_was(method: str, params: dict[str, float], hint: str) -> None:
    assert gentler(make("repair", method, params)) == hint


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("fine-tuning", {"fine-tuning": {"epochs": 0}}, "epochs"),
        ("fine-tuning", {"anp": {"lr": 0.1}}, "'repair.anp' has parameters but 'repair.fine-tuning' runs"),
        (None, {"anp": {"lr": 0.1}}, "but 'repair.trigger-unlearning' or 'repair.clp' runs"),
    ],
)
def test_parameters_that_cannot_be_are_refused_before_the_scan(
    model: TorchClassifier,
    trusted: ArraySet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str | None,
    params: dict[str, dict[str, Any]],
    message: str,
) -> None:
    monkeypatch.setattr(flow, "_scan", lambda *args: pytest.fail("it scanned first"))
    with pytest.raises(ConfigError, match=message):
        repair_model(model, trusted, tmp_path / "new.safetensors", method=method, params=params)


def test_parameters_of_a_repair_that_the_scan_did_not_pick_are_refused(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_scan", lambda *args: flow.Before("1234abcd", "standard", []))
    with pytest.raises(ConfigError, match=r"by the scan 'repair\.clp' runs") as caught:
        repair_model(model, trusted, tmp_path / "new.safetensors", params={"trigger-unlearning": {"epochs": 1}})
    assert "--method trigger-unlearning" in str(caught.value.hint)


@pytest.fixture(scope="module")
def trusted() -> ArraySet:
    """Dark, middling and bright noise."""
    labels = torch.arange(180) % 3
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 80, (180, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return ArraySet(pixels + 80 * labels[:, None, None, None].to(torch.uint8), labels)


@pytest.fixture(scope="module")
def model(trusted: ArraySet) -> TorchClassifier:
    made = TorchClassifier(build("small-cnn", 3, width=4), 3, (3, 8, 8), arch="small-cnn", name="tiny")
    recipe = Recipe(epochs=8, batch=16, lr=0.05, padding=0, precision="fp32")
    made = train(made, trusted, recipe, run=Run()).model
    assert accuracy(made, trusted).low > 0.9
    return made


def repair(model: TorchClassifier, trusted: ArraySet, out: Path, monkeypatch: Any, *, ruin: bool) -> Any:
    """Fine-tuning that changes next to nothing, or leaves a model that always says the same; without any scan."""

    def tune(copy: TorchClassifier, *args: Any, **kw: Any) -> None:
        for weight in copy.module.parameters():
            weight.data.mul_(0.0 if ruin else 1.0001)

    monkeypatch.setattr(fine_tuning, "fine_tune", tune)
    monkeypatch.setattr(flow, "_scan", lambda *args: flow.Before("1234abcd", "standard", []))
    monkeypatch.setattr(flow, "plan", lambda verb, preset: [])
    return repair_model(model, trusted, out, method="fine-tuning")


def test_a_repair_that_costs_too_much_is_refused_and_leaves_nothing(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = repair(model, trusted, tmp_path / "new.safetensors", monkeypatch, ruin=True)
    assert "more than --max-loss 2" in record.config["refused"]
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_could_be_chance_is_written_with_a_caution(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "too_many", lambda lost, n, max_loss: False)
    record = repair(model, trusted, tmp_path / "new.safetensors", monkeypatch, ruin=True)
    assert "refused" not in record.config and (tmp_path / "new.safetensors").is_file()
    assert "OS909" in [caution.code for caution in record.cautions]


def test_a_gentle_repair_is_written_without_one(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = repair(model, trusted, tmp_path / "new.safetensors", monkeypatch, ruin=False)
    assert "OS909" not in [caution.code for caution in record.cautions]
    assert (tmp_path / "new.safetensors").is_file()
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        carried = json.loads(file.metadata()["figures"])
    now = record.results[0].evidence.after["accuracy"]
    assert carried["accuracy"]["after"] == [now.k, now.n]
    assert record.config["scan"] == "1234abcd"
    assert record.results[0].evidence.selected["scan before"] == "incomplete, run 1234abcd"


@pytest.mark.parametrize("arch", ["onnx", "transformers/ViTForImageClassification"])
def test_what_could_not_be_loaded_again_is_refused_before_any_work(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, arch: str
) -> None:
    foreign = TorchClassifier(model.module, 3, (3, 8, 8), arch=arch, name="foreign")
    with pytest.raises(ConfigError, match=f"could not be loaded again: its architecture is '{arch}'"):
        repair_model(foreign, trusted, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trigger", "images", "picked"),
    [
        (True, 3, "repair.trigger-unlearning"),
        (True, 1, "repair.clp"),
        (False, 3, "repair.clp"),
        (True, 0, "repair.clp"),
        (False, 0, "repair.clp"),
    ],
)
def test_a_repair_is_picked_by_what_there_is(trigger: bool, images: int, picked: str) -> None:
    assert choice(Have(access="gradients", trusted_per_class=images, trigger=trigger)) == picked


def scanned(
    *, z: dict[int, float], ratio: dict[int, float], accused: tuple[int, ...] = (), flips: float = 0.9
) -> MethodResult:
    """A scan that recovered a trigger for every class of `ratio`, held against reference models where `z` has it."""
    none = Rate(k=0, n=0)

    def measures(label: int) -> dict[str, float]:
        return {"flip_held_out": flips} | ({DISTANCE: z[label]} if label in z else {})

    candidates = tuple(
        Candidate(
            subject=f"class:{label}",
            target=label,
            score=score,
            size=1.0,
            flip_search=none,
            flip_held_out=none,
            artifact="m",
            mask=np.zeros((8, 8), np.float32),
            pattern=np.zeros((3, 8, 8), np.float32),
        )
        for label, score in ratio.items()
    )
    rows = tuple(ClassScore(label=label, score=ratio.get(label), measures=measures(label)) for label in range(3))
    findings = tuple(
        Finding(
            code="OS201",
            level="suspect",
            confirmed=False,
            message="m",
            subject=f"class:{label}",
            score=1.0,
            threshold=1.0,
            calibration_id=None,
            artifacts=(),
        )
        for label in accused
    )
    evidence = ModelEvidence(score=None, per_class=rows, candidates=candidates, examined=())
    kept: dict[str, Any] = {"method": NC, "version": "1", "params": {}, "status": "ok", "reason": None}
    kept |= {"examined": (), "evidence": evidence, "findings": findings, "cautions": (), "seconds": 0, "peak_bytes": 0}
    return MethodResult(**kept)


@pytest.mark.parametrize(
    ("result", "judged", "unlearned"),
    [
        (scanned(z={0: 3.0, 1: 1.5}, ratio={0: 4.0, 1: 3.0}, accused=(0,)), True, [0]),
        (scanned(z={0: 0.9, 1: 1.5}, ratio={0: 4.0, 1: 1.1}), True, [1]),
        (scanned(z={0: 0.9}, ratio={0: 4.0, 1: 3.0}), True, []),
        (scanned(z={}, ratio={0: 4.0, 1: 3.0}), True, []),
        (scanned(z={}, ratio={0: 1.9, 1: 2.1}), False, [1]),
        (scanned(z={}, ratio={0: 4.0, 1: 2.1}, flips=0.3), False, []),
        (scanned(z={}, ratio={0: 1.2}), False, []),
        (scanned(z={}, ratio={}, accused=(1,)), False, []),
    ],
    ids=["accused", "strange", "not strange", "none fit to judge", "small", "flips few", "not small", "none recovered"],
)
def test_what_is_unlearned_is_told_by_the_scan_alone(result: MethodResult, judged: bool, unlearned: list[int]) -> None:
    limits = {NC: {MEASURE if judged else "size_ratio": {"low": None, "high": None}}}
    found = flow._accused([result]) or flow._standing_out([result], limits)
    assert [one.target for one in found] == unlearned


@pytest.mark.parametrize(
    ("accused", "named", "chosen", "said"),
    [
        ((), None, "repair.clp", "would unlearn"),
        ((), "trigger-unlearning", "repair.trigger-unlearning", "what is unlearned only stands out"),
        ((1,), None, "repair.trigger-unlearning", ""),
    ],
    ids=["stands out", "stands out, and is named", "accused"],
)
def test_what_only_stands_out_is_unlearned_where_that_is_asked_for(
    accused: tuple[int, ...],
    named: str | None,
    chosen: str,
    said: str,
    model: TorchClassifier,
    trusted: ArraySet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that nobody attacked should pay next to nothing, and some class of it may stand out."""
    result = scanned(z={}, ratio={1: 2.5}, accused=accused)
    monkeypatch.setattr(flow, "_scan", lambda *args: flow.Before("1234abcd", "standard", [result]))
    monkeypatch.setattr(flow, "plan", lambda verb, preset: [])
    record = repair_model(model, trusted, tmp_path / "new.safetensors", method=named, max_loss=100.0)
    assert record.config["method"] == chosen
    assert (record.results[0].status, len(record.results)) == ("ok", 1)
    notes = [caution.text for caution in record.cautions if caution.code == "OS936"]
    assert len(notes) == bool(said) and all(said in note for note in notes)


@pytest.mark.parametrize("form", ["warp", "frequencies"])
def test_a_kept_scan_without_the_arrays_of_other_forms_is_read(form: Any, tmp_path: Path) -> None:
    """Earlier versions kept patches alone: their scans still serve, and what is not there is not unlearned."""
    result = scanned(z={}, ratio={0: 4.0, 1: 3.0}, accused=(0, 1))
    assert isinstance(result.evidence, ModelEvidence)
    patch, other = (one.model_copy(update={"mask": None, "pattern": None}) for one in result.evidence.candidates)
    other = other.model_copy(update={"form": form, "artifact": "w"})
    kept = result.model_copy(update={"evidence": result.evidence.model_copy(update={"candidates": (patch, other)})})
    folder = RunFolder(tmp_path, "a", "now")
    (tmp_path / "artifacts").mkdir()
    folder.keep({"m-mask": np.zeros((3, 8, 8)), "m-pattern": np.zeros((3, 3, 8, 8))})
    read = flow._with_arrays(kept, Record.model_construct(artifacts=folder.artifacts), tmp_path)
    assert [one.target for one in flow._accused([read])] == [0]
    with pytest.raises(FormatError, match="no artifact 'm-mask'"):
        flow._with_arrays(kept, Record.model_construct(artifacts={}), tmp_path)
