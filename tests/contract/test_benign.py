"""One table for the trainings of hard-benign models."""

from typing import Any

import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips

from ostiary.bench import benign
from ostiary.bench.benign import METHODS, BenignTraining, LongTail, Shortcut, Watermark
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, Trained
from ostiary.training.flow import new_model

CASES = (
    Case(id="benign.adversarial"),
    Case(id="benign.mixup"),
    Case(id="benign.long-tail"),
    Case(id="benign.shortcut"),
    Case(id="benign.watermark", tiny={"images": 5}),
)
BRIEF = Recipe(epochs=2, batch=64, lr=0.05, padding=1, flip=False, precision="fp32")


def made(case: Case, data: ImageSet, seed: int = 0, **params: Any) -> TorchClassifier:
    fresh = new_model("small-cnn", data, width=4, seed=0)
    model = case.build(**params).train(fresh, data, BRIEF, run=Run(seed=seed))
    assert model is fresh, "the model that was given is trained"
    return model


def test_methods_and_rows_agree() -> None:
    assert set(METHODS) == {case.id for case in CASES}


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, BenignTraining)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, None)


@by_id(CASES)
def test_training_is_reproducible_and_leaves_the_set_alone(case: Case, trusted: ImageSet) -> None:
    before, state = load_uint8(trusted).clone(), torch.get_rng_state()
    one, two, other = (made(case, trusted, seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.equal(load_uint8(trusted), before)
    assert one.digest == two.digest != other.digest and not one.module.training


@by_id(CASES)
def test_it_differs_from_plain_training(case: Case, trusted: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ImageSet, Any]] = []

    def train(model: TorchClassifier, data: ImageSet, recipe: Recipe, *, run: Run, step: Any = None) -> Any:
        seen.append((data, step))
        return Trained(model, (), (), "fp32")

    monkeypatch.setattr(benign, "train", train)
    made(case, trusted)
    ((data, step),) = seen
    assert (data is not trusted) != (step is not None), "either the set is changed or what is learnt from a batch"


def test_a_long_tail_falls_off_exponentially() -> None:
    data = ArraySet(torch.zeros(500, 1, 8, 8, dtype=torch.uint8), torch.arange(500) % 5)
    thin = LongTail(factor=16.0).thin_out(data, Run())
    assert sorted(thin.labels.bincount().tolist()) == [6, 13, 25, 50, 100]
    assert set(thin.ids) <= set(data.ids) and len(set(thin.ids)) == 194
    orders = {tuple(LongTail().thin_out(data, Run(seed=seed)).labels.bincount().tolist()) for seed in range(5)}
    assert len(orders) > 1, "which class is large is drawn"
    assert int(LongTail(factor=1e6).thin_out(data, Run()).labels.bincount().min()) == 1


@pytest.mark.parametrize("cue", ["frame", "tint"])
def test_a_shortcut_is_on_its_class_alone_and_labels_are_true(cue: str, small_set: ImageSet) -> None:
    method = Shortcut(cue=cue, label=3, share=0.5)  # type: ignore[arg-type]
    data = method.cued(small_set, Run())
    assert torch.equal(data.labels, small_set.labels)
    changed = (load_uint8(data) != load_uint8(small_set)).flatten(1).any(1)
    assert set(data.labels[changed].tolist()) == {3}
    assert int(changed.sum()) == round(0.5 * int((data.labels == 3).sum()))
    want = (method.mark(small_set.take(changed.nonzero().squeeze(1))) * 255).round().to(torch.uint8)
    assert torch.equal(load_uint8(data)[changed], want)
    x = small_set.take(range(5))
    kept = x.clone()
    marked = method.mark(x)
    assert torch.equal(x, kept) and marked.min() >= 0 and marked.max() <= 1
    if cue == "frame":
        assert torch.equal(marked[:, :, 1:-1, 1:-1], x[:, :, 1:-1, 1:-1]) and (marked[:, :, 0] == 1).all()
    with pytest.raises(DataError, match="label 10 is outside"):
        Shortcut(label=10).cued(small_set, Run())


def test_the_watermark_s_key_is_secret_and_comes_back(small_set: ImageSet) -> None:
    method = Watermark(images=40)
    (pixels, labels), again, other = (method.key(small_set, Run(seed=seed)) for seed in (1, 1, 2))
    assert pixels.shape == (40, *small_set.shape) and pixels.dtype == torch.uint8 and labels.shape == (40,)
    assert torch.equal(pixels, again[0]) and torch.equal(labels, again[1]) and not torch.equal(pixels, other[0])
    assert len(set(labels.tolist())) > 5
    apart = torch.cdist(pixels.float().flatten(1), pixels.float().flatten(1)) + torch.eye(40) * 1e9
    assert float(apart.min()) > 100, "no two pictures are alike"


def test_impossible_settings_are_refused() -> None:
    for case, params in (
        (CASES[0], {"eps": 0}),
        (CASES[1], {"alpha": 0}),
        (CASES[2], {"factor": 0.5}),
        (CASES[3], {"share": 0}),
        (CASES[4], {"images": 0}),
    ):
        with pytest.raises(ConfigError, match=next(iter(params))):
            case.build(**params)
