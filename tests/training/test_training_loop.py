"""The training loop: a seed is a model, an interrupted run ends as an uninterrupted one, failures have words."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ostiary.core.errors import FormatError, ModelError
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, accuracy, per_class, predictions, rate, train
from ostiary.training.flow import moments, new_model
from ostiary.training.loop import _epoch_batches, _steps, has_fast_bf16

RECIPE = Recipe(epochs=3, batch=16, lr=0.05, padding=1, precision="fp32")


def make(n: int = 60) -> ArraySet:
    """Two classes told apart by brightness."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    pixels = torch.randint(0, 120, (n, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return ArraySet(pixels + 120 * labels[:, None, None, None].to(torch.uint8), labels)


@pytest.fixture
def data() -> ArraySet:
    return make()


def fresh(data: ArraySet, seed: int = 0) -> TorchClassifier:
    return new_model("small-cnn", data, width=2, seed=seed)


def weights(model: TorchClassifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def equal(one: TorchClassifier, other: TorchClassifier) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_seed_is_a_model_and_another_is_another(data: ArraySet) -> None:
    one, same, other = (train(fresh(data), data, RECIPE, run=Run(seed=seed)) for seed in (1, 1, 2))
    assert equal(one.model, same.model) and one.losses == same.losses
    assert not equal(one.model, other.model)


def test_the_global_generator_is_neither_read_nor_moved(data: ArraySet) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = train(fresh(data), data, RECIPE, run=Run())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert equal(train(fresh(data), data, RECIPE, run=Run()).model, one.model)


def test_dropout_depends_on_the_seed_alone(data: ArraySet) -> None:
    def with_dropout() -> TorchClassifier:
        model = fresh(data)
        torch.nn.Module.__setattr__(model.module, "pool", torch.nn.Sequential(model.module.pool, torch.nn.Dropout(0.5)))
        return model

    models = []
    for other in (1, 2):
        torch.manual_seed(other)
        models.append(train(with_dropout(), data, RECIPE, run=Run()).model)
    assert equal(*models)


def test_it_learns(data: ArraySet) -> None:
    done = train(fresh(data), data, dataclasses.replace(RECIPE, epochs=8), run=Run())
    assert done.losses[-1] < done.losses[0] and len(done.losses) == len(done.accuracies) == 8
    assert accuracy(done.model, data).k > 54
    assert not done.model.module.training and done.precision == "fp32"


class Stop(Exception):
    pass


@pytest.mark.parametrize("epochs_done", [1, 2])
def test_resuming_after_an_interruption_gives_the_same_weights(
    data: ArraySet, tmp_path: Path, epochs_done: int
) -> None:
    whole = train(fresh(data), data, RECIPE, run=Run(seed=3))

    def pull(done: int, total: int, label: str) -> None:
        if done > total * epochs_done / RECIPE.epochs + 1:
            raise Stop

    run = Run(seed=3)
    run.on_progress = pull
    path = tmp_path / "state.pt"
    with pytest.raises(Stop):
        train(fresh(data), data, RECIPE, run=run, checkpoint=path)
    resumed = train(fresh(data), data, RECIPE, run=Run(seed=3), checkpoint=path)
    assert equal(resumed.model, whole.model)
    assert (resumed.losses, resumed.accuracies) == (whole.losses, whole.accuracies)
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


def test_a_checkpoint_of_another_run_is_refused(data: ArraySet, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    train(fresh(data), data, RECIPE, run=Run(), checkpoint=path)
    others = [
        (data, dataclasses.replace(RECIPE, lr=0.01), Run()),
        (data, RECIPE, Run(seed=1)),
        (make(40), RECIPE, Run()),
    ]
    for other_data, recipe, run in others:
        with pytest.raises(FormatError, match="another run"):
            train(fresh(other_data), other_data, recipe, run=run, checkpoint=path)


def test_a_checkpoint_of_another_model_is_refused(data: ArraySet, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    train(fresh(data), data, RECIPE, run=Run(), checkpoint=path)
    with pytest.raises(FormatError, match="another run"):
        train(new_model("small-cnn", data, width=4, seed=0), data, RECIPE, run=Run(), checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x04."])
def test_a_damaged_checkpoint_is_refused(data: ArraySet, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="checkpoint"):
        train(fresh(data), data, RECIPE, run=Run(), checkpoint=path)


def test_label_smoothing_changes_the_loss(data: ArraySet) -> None:
    plain, smooth = (
        train(fresh(data), data, dataclasses.replace(RECIPE, epochs=8, label_smoothing=share), run=Run()).losses[-1]
        for share in (0.0, 0.4)
    )
    # With 0.4 over two classes no prediction has less than the entropy of (0.8, 0.2).
    assert plain < 0.4
    assert smooth >= 0.5004


def test_divergence_is_an_error_with_a_next_step(data: ArraySet) -> None:
    with pytest.raises(ModelError, match="diverged in epoch") as caught:
        train(fresh(data), data, dataclasses.replace(RECIPE, lr=1e30), run=Run())
    assert "--lr" in str(caught.value.hint)


@pytest.mark.parametrize(("n", "sizes"), [(33, [16, 16]), (34, [16, 16, 2]), (32, [16, 16]), (1, [1]), (17, [16])])
def test_a_last_batch_of_one_is_left_out(n: int, sizes: list[int]) -> None:
    pixels, labels = torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.arange(n)
    batches = list(_epoch_batches(pixels, labels, RECIPE, torch.Generator().manual_seed(0), torch.device("cpu")))
    assert [len(y) for _, y in batches] == sizes
    assert len(sizes) == _steps(n, RECIPE.batch)
    seen = torch.cat([y for _, y in batches])
    assert len(seen.unique()) == sum(sizes)


def test_training_on_one_more_than_whole_batches_works() -> None:
    data = make(33)
    assert len(train(fresh(data), data, RECIPE, run=Run()).losses) == 3


def test_moments_are_those_of_the_pixels(data: ArraySet) -> None:
    mean, std = moments(data)
    x = data.take(range(len(data))).double()
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert std == pytest.approx(x.std((0, 2, 3)).tolist(), abs=1e-6)


def test_moments_of_a_uniform_set_can_be_divided_by() -> None:
    mean, std = moments(ArraySet(torch.full((4, 3, 8, 8), 51, dtype=torch.uint8), [0, 1, 0, 1]))
    assert mean == pytest.approx((0.2,) * 3) and std == (0.01,) * 3


def test_accuracy_and_predictions(data: ArraySet) -> None:
    model = fresh(data)
    predicted = predictions(model, data)
    assert torch.equal(predicted, model.predict(data.take(range(60))).argmax(1))
    assert accuracy(model, data).k == int((predicted == data.labels).sum())
    assert rate(torch.tensor([True, False, True])).value == pytest.approx(2 / 3)
    rows = per_class(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1]), 3)
    assert [(row.k, row.n) for row in rows] == [(1, 2), (1, 2), (0, 0)]


@pytest.mark.parametrize(("limit", "fast"), [("", True), ("ALL", True), ("AVX512_CORE_BF16", True), ("AVX2", False)])
def test_bf16_is_fast_only_where_the_instructions_may_be_used(
    monkeypatch: pytest.MonkeyPatch, limit: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_fast_bf16(torch.device("cpu")) is fast
