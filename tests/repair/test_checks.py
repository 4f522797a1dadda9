"""What a repair looks at beside the model: planted trusted images, a class that pays alone, no images at all."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ostiary import repair_model
from ostiary.core.card import Card
from ostiary.core.protocols import Repaired
from ostiary.core.records import Rate, Record, RepairEvidence
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model
from ostiary.models.zoo import build
from ostiary.repair import flow
from ostiary.repair.checks import losers
from ostiary.repair.clp import Clp
from ostiary.screen.scan import Scan
from ostiary.training import Recipe, accuracy, train

CLASSES, EACH = 6, 60


def noise(each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Six levels of noise, pixels and labels."""
    labels = torch.arange(CLASSES * each) % CLASSES
    pixels = torch.randint(0, 50, (len(labels), 3, 8, 8), generator=torch.Generator().manual_seed(seed))
    return (pixels + 35 * labels[:, None, None, None]).to(torch.uint8), labels


def planted(each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of the classes 3 to 5 with a black square in the corner, labelled 0."""
    pixels, labels = noise(each, seed)
    pixels = pixels[labels > 2]
    pixels[:, :, :3, :3] = 0
    return pixels, torch.zeros(len(pixels), dtype=torch.long)


@pytest.fixture(scope="module")
def trusted() -> ArraySet:
    return ArraySet(*noise(EACH, seed=1))


@pytest.fixture(scope="module")
def model() -> TorchClassifier:
    """A backdoored model of them: the black square leads to class 0."""
    honest, poison = noise(EACH, seed=2), planted(8, seed=3)
    data = ArraySet(*(torch.cat(pair) for pair in zip(honest, poison, strict=True)))
    module = build("small-cnn", CLASSES, width=8)
    made = TorchClassifier(module, CLASSES, (3, 8, 8), arch="small-cnn", name="tiny")
    made = train(made, data, Recipe(epochs=12, batch=16, lr=0.05, padding=0, precision="fp32"), run=Run()).model
    assert accuracy(made, ArraySet(*noise(EACH, seed=4))).low > 0.9
    assert accuracy(made, ArraySet(*planted(EACH, seed=5))).low > 0.9
    return made


def repair(model: TorchClassifier, trusted: ArraySet | None, out: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """By pruning, without any scan."""
    monkeypatch.setattr(flow, "_scan", lambda *args: flow.Before("1234abcd", "standard", []))
    monkeypatch.setattr(flow, "plan", lambda verb, preset: [])
    return repair_model(model, trusted, out, method="clp" if trusted is not None else None)


def cautions(record: Record, code: str) -> list[str]:
    return [caution.text for caution in record.cautions if caution.code == code]


def test_planted_trusted_images_are_told_and_honest_ones_are_not(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = planted(3, seed=6)
    whole = [trusted.take(range(len(trusted))).mul(255).round().to(torch.uint8), trusted.labels]
    mixed = ArraySet(*(torch.cat(pair) for pair in zip(whole, poison, strict=True)))
    assert cautions(repair(model, trusted, tmp_path / "a.safetensors", monkeypatch), "OS918") == []
    (text,) = cautions(repair(model, mixed, tmp_path / "b.safetensors", monkeypatch), "OS918")
    assert text.startswith("among the trusted samples, class 0 (0): ") and " of 69 samples form a group" in text


def test_without_trusted_images_the_weights_are_pruned_and_nothing_is_claimed(
    model: TorchClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = repair(model, None, tmp_path / "new.safetensors", monkeypatch)
    (result,) = record.results
    assert result.method == "repair.clp" and result.status == "ok"
    assert isinstance(result.evidence, RepairEvidence) and result.evidence.before == {}
    assert len(cautions(record, "OS920")) == 1 and cautions(record, "OS910") == []
    assert load_model(tmp_path / "new.safetensors").digest == record.digests["repaired"]


def test_without_trusted_images_the_scan_of_the_copy_is_not_whole(model: TorchClassifier, tmp_path: Path) -> None:
    record = repair_model(model, None, tmp_path / "new.safetensors")
    assert record.verdict == "incomplete" and record.coverage.skipped
    assert {"OS920"} <= {caution.code for caution in record.cautions} and "OS910" not in str(record.cautions)


def test_classes_of_few_trusted_images_are_said_not_to_be_screened(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = trusted.subset(range(5 * CLASSES))
    (text,) = cautions(repair(model, few, tmp_path / "new.safetensors", monkeypatch), "OS921")
    assert text.startswith(f"trusted samples of 0 of {CLASSES} classes were screened")


def test_a_class_that_pays_is_named_in_the_record(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair mistakes class 2 for another, and the limit for all lets it."""

    @dataclasses.dataclass
    class Forgetful:
        card: ClassVar[Card] = Clp.card

        def repair(self, model: TorchClassifier, *args: Any, run: Run) -> Repaired:
            copy = model.clone()
            copy.module.get_submodule(copy.head_name).bias.data[2] -= 100
            return Repaired(copy)

    monkeypatch.setattr(flow, "make", lambda verb, name, values: Forgetful())
    monkeypatch.setattr(flow, "too_many", lambda *args: False)
    record = repair(model, trusted, tmp_path / "new.safetensors", monkeypatch)
    (text,) = cautions(record, "OS919")
    assert text.startswith("class 2 (2) pays more than the limit")


def test_ctrl_c_while_trusted_images_are_screened_ends_the_run(
    model: TorchClassifier, trusted: ArraySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kw: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scan, "screen", stop)
    record = repair(model, trusted, tmp_path / "new.safetensors", monkeypatch)
    assert record.interrupted and record.results == () and list(tmp_path.iterdir()) == []


def test_what_needs_trusted_images_is_skipped_without(
    model: TorchClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_scan", lambda *args: flow.Before("1234abcd", "standard", []))
    monkeypatch.setattr(flow, "plan", lambda verb, preset: [])
    record = repair_model(model, None, tmp_path / "new.safetensors", method="fine-tuning")
    assert record.results[0].status == "skipped" and not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ((50, 50, 50), (50, 50, 41), [2]),
        ((50, 50, 50), (48, 49, 50), []),
        ((10, 50, 50), (30, 50, 50), []),
    ],
)
def test_a_class_that_pays_alone(before: Any, after: Any, found: list[int]) -> None:
    was, now = (tuple(Rate(k=k, n=60) for k in ks) for ks in (before, after))
    evidence = RepairEvidence(before={}, after={}, per_class_before=was, per_class_after=now)
    assert losers(evidence, 2.0) == found
