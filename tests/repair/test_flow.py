"""The repair verb: what is refused, what is written, and what few images cannot tell."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ostiary import repair_model
from ostiary.core.errors import ConfigError
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.repair import fine_tuning, flow
from ostiary.repair.checks import too_many
from ostiary.repair.flow import choice, gentler
from ostiary.training import Recipe, accuracy, train


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
    ("method", "hint"),
    [
        ("clp", "prune less, as in --set clp.u=4"),
        ("anp", "change less, as in --set anp.tolerance=0.01"),
        ("mm-bm", "change less, as in --set mm-bm.tolerance=0.01"),
        ("nad", "try a lower rate, as in --set nad.lr=0.003"),
    ],
)
def test_a_refusal_says_what_to_set(method: str, hint: str) -> None:
    assert gentler(f"repair.{method}") == hint


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
    monkeypatch.setattr(flow, "_scan", lambda *args: [])
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
        (True, True, "repair.trigger-unlearning"),
        (False, True, "repair.clp"),
        (True, False, "repair.clp"),
        (False, False, "repair.clp"),
    ],
)
def test_a_repair_is_picked_by_what_there_is(trigger: bool, images: bool, picked: str) -> None:
    given = ArraySet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), ("x", "y"))
    assert choice(trigger, given if images else None) == picked
