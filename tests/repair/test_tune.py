"""Fine-tuning with trusted images: seeded, in place, and held to what is asked after every step."""

import pytest
import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.repair.fine_pruning import _last_layer, _prune
from ostiary.repair.tune import Tuning, fine_tune


@pytest.fixture
def data() -> ArraySet:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(33) % 3
    pixels = torch.randint(0, 80, (33, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return ArraySet(pixels + 80 * labels[:, None, None, None].to(torch.uint8), labels)


def fresh() -> TorchClassifier:
    return TorchClassifier(build("small-cnn", 3, width=2), 3, (3, 8, 8))


def tuned(data: ArraySet, seed: int = 0, **kw: object) -> TorchClassifier:
    model = fresh()
    tuning = Tuning(epochs=3, lr=0.01, padding=1)
    fine_tune(model, load_uint8(data), data.labels, tuning, run=Run(seed=seed), label="test", **kw)  # type: ignore[arg-type]
    return model


def test_a_seed_is_a_result(data: ArraySet) -> None:
    assert tuned(data).digest == tuned(data).digest != tuned(data, seed=1).digest != fresh().digest


def test_the_model_is_left_in_eval_mode_and_the_global_generator_alone(data: ArraySet) -> None:
    state = torch.get_rng_state()
    assert not tuned(data).module.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_change_sees_images_in_the_unit_range_after_the_shift(data: ArraySet) -> None:
    seen: list[Tensor] = []

    def change(x: Tensor, rng: torch.Generator) -> Tensor:
        seen.append(x)
        return x * 0

    blank = tuned(data, change=change)
    assert sum(len(x) for x in seen) == 3 * 32, "the last batch of one is left out"
    assert all(x.min() >= 0 and x.max() <= 1 and x.dtype == torch.float32 for x in seen)
    assert blank.digest != tuned(data).digest, "what the model learns from is what the change gives"


def test_a_teacher_takes_the_place_of_the_labels_and_sees_the_images_before_the_change(data: ArraySet) -> None:
    seen: list[Tensor] = []

    def teacher(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return torch.eye(3)[torch.zeros(len(x), dtype=torch.long)]

    model, wrong = fresh(), ArraySet(load_uint8(data), torch.ones(33, dtype=torch.long), classes=data.classes)
    tuning = Tuning(epochs=20, lr=0.05, padding=0)
    blank = {"teacher": teacher, "change": lambda x, rng: x * 0}
    fine_tune(model, load_uint8(wrong), wrong.labels, tuning, run=Run(), label="test", **blank)  # type: ignore[arg-type]
    assert (model.predict(torch.zeros(1, 3, 8, 8)).argmax(1) == 0).all(), "the teacher says 0, the labels 1"
    assert all(x.any() for x in seen)


def linear_after_norm() -> TorchClassifier:
    """A layer without a rectifier behind it, as at the end of a residual block: gradients reach pruned channels."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    return TorchClassifier(nn.Sequential(*parts), 3, (3, 8, 8))


@pytest.mark.parametrize("held", [True, False])
def test_pruned_channels_stay_at_zero_only_when_held(data: ArraySet, held: bool) -> None:
    """Momentum and gradients bring back what was pruned once and never again."""
    model = linear_after_norm()
    layer = _last_layer(model)
    assert layer == ("0", "1")
    channels = torch.tensor([0, 3, 5])
    zero = _prune(model, layer, channels)
    tuning = Tuning(epochs=3, lr=0.05, padding=1)
    hold = zero if held else None
    fine_tune(model, load_uint8(data), data.labels, tuning, run=Run(), label="test", after_step=hold)
    parts = [model.module.get_submodule(name) for name in ("0", "1")]
    values = [p.detach() for part in parts for p in (part.weight, part.bias)]
    assert all(value[[1, 2, 4]].any() for value in values)
    assert any(value[channels].any() for value in values) is not held


def diverging(data: ArraySet, at: int, run: Run) -> TorchClassifier:
    """Tuned with a loss that is NaN from step `at` on; an epoch has two steps."""
    model, losses = fresh(), iter([3.0, 3.0, 1.0, 1.0, 2.0, 2.0, *[1.5] * 9])
    step = 0

    def backward(x: Tensor, want: Tensor) -> Tensor:
        nonlocal step
        step += 1
        model.logits(x).sum().backward()
        return torch.tensor(float("nan") if step >= at else next(losses))

    tuning = Tuning(epochs=4, lr=0.01, batch=16)
    fine_tune(model, load_uint8(data), data.labels, tuning, run=run, label="tuning", backward=backward)
    return model


def test_a_loss_that_diverges_leaves_the_weights_of_the_best_epoch(data: ArraySet) -> None:
    run = Run()
    late, later = diverging(data, 7, run), diverging(data, 8, Run())
    assert late.digest == later.digest, "those after the second epoch"
    assert not late.module.training
    (caution,) = run.cautions
    assert caution.code == "OS917"
    assert caution.text == (
        "the loss of tuning is not finite in round 4; the weights after round 2, of the lowest loss, are kept"
    )


def test_a_loss_that_diverges_at_once_is_an_error(data: ArraySet) -> None:
    with pytest.raises(ModelError, match="not finite in round 1, and there are no better weights"):
        diverging(data, 2, Run())
    tuning = Tuning(epochs=3, lr=1e30)
    with pytest.raises(ModelError, match="not finite in round 2"):
        fine_tune(fresh(), load_uint8(data), data.labels, tuning, run=Run(), label="tuning")


def test_too_few_images_are_told(data: ArraySet) -> None:
    with pytest.raises(NotMet, match="of so few, 1 are left"):
        tuned(data.subset([0]))
