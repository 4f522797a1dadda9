"""One table for the attacks that control the training of a model or edit its weights."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips

from ostiary.attacks.blind import task_share
from ostiary.attacks.control import count_of
from ostiary.attacks.generator import lay, make_mask, make_pattern
from ostiary.attacks.input_aware import InputAware, likeness
from ostiary.attacks.triggers import tensors_of
from ostiary.attacks.truth import PoisonedModel, load_truth, save_truth
from ostiary.core.errors import ConfigError, DataError, OutOfTime
from ostiary.core.execute import params_of
from ostiary.core.protocols import TrainingAttack, WeightAttack
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.flow import new_model

RECIPE = Recipe(epochs=1, batch=32, lr=0.05, padding=1, flip=False, precision="fp32")

CASES = (
    Case(id="attack.input-aware", tiny={"rate": 0.2, "target": 1, "mask_steps": 3}),
    Case(id="attack.blind", tiny={"rate": 0.2, "target": 1, "threshold": 100.0}),
    Case(id="attack.trojan-nn", tiny={"rate": 0.2, "target": 1, "size": 4, "steps": 3, "epochs": 1}),
    Case(id="attack.poisoned-tuning", tiny={"rate": 0.2, "target": 1, "share": 0.5, "epochs": 1}),
    Case(id="attack.subnet", tiny={"rate": 0.2, "target": 1, "epochs": 1}),
)


@pytest.fixture(scope="module")
def source(trusted: ImageSet) -> ImageSet:
    """A hundred digits at 16x16."""
    return trusted.subset(range(100))


def fresh(source: ImageSet, seed: int) -> TorchClassifier:
    return new_model("small-cnn", source, width=8, seed=seed)


def edits(case: Case) -> bool:
    """Whether the attack is given a trained model, and no training."""
    return hasattr(case.build(), "edit")


def attacked(case: Case, source: ImageSet, run: Run | None = None) -> PoisonedModel:
    """What the attack makes of a fresh model."""
    run, attack = run or case.run(), case.build()
    model = fresh(source, 0 if edits(case) else run.seed)
    before = model.digest
    try:
        made: PoisonedModel = (
            attack.edit(model, source, run=run) if edits(case) else attack.train(model, source, RECIPE, run=run)
        )
    finally:
        assert not edits(case) or model.digest == before, "an edit changes a copy"
    return made


@by_id(CASES)
def test_it_has_its_class_and_card(case: Case) -> None:
    check_class(case, WeightAttack if edits(case) else TrainingAttack)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, call="edit" if edits(case) else "train")


@by_id(CASES)
def test_it_gives_a_model_and_its_truth_and_leaves_its_inputs_alone(case: Case, source: ImageSet) -> None:
    before = source.digest
    made = attacked(case, source)
    assert source.digest == before
    assert made.model.digest != fresh(source, 0 if edits(case) else case.seed).digest and not made.model.module.training
    assert all(weight.requires_grad for weight in made.model.module.parameters())
    assert made.model.input_shape == source.shape and tuple(made.model.classes) == tuple(source.classes)
    truth = made.truth
    assert truth.attack == case.id and truth.params == params_of(case.build())
    assert (truth.poisoned, truth.covers, truth.source_digest) == ({}, (), source.digest)
    assert (truth.mapping, truth.target, truth.rate, truth.seed) == ("all-to-one", 1, case.tiny["rate"], 3)
    assert truth.trigger is not None and truth.trigger.shape == source.shape


@by_id(CASES)
def test_a_seed_is_a_model(case: Case, source: ImageSet) -> None:
    state = torch.get_rng_state()
    one, same, other = (attacked(case, source, Run(seed=seed)) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert one.model.digest == same.model.digest != other.model.digest
    first, second = (tensors_of(made.truth.trigger) for made in (one, same))
    assert all(torch.equal(first[name], second[name]) for name in first)


@by_id(CASES)
def test_the_trigger_is_pure_and_comes_back_as_it_was(case: Case, source: ImageSet, tmp_path: Path) -> None:
    truth = attacked(case, source).truth
    x, rng = source.take(range(8)), torch.Generator().manual_seed(2)
    kept, state = x.clone(), rng.get_state()
    first, second = truth.trigger(x, rng=rng), truth.trigger(x, rng=rng)
    assert torch.equal(x, kept) and torch.equal(first, second) and not torch.equal(first, x)
    assert torch.equal(rng.get_state(), state), "a trigger of an attacked model draws nothing"
    assert first.min() >= 0 and first.max() <= 1 and not first.requires_grad
    assert torch.allclose(truth.trigger(x[3:4], rng=rng), first[3:4], atol=1e-5)
    save_truth(truth, tmp_path / "m.truth")
    loaded = load_truth(tmp_path / "m.truth")
    plain = [field.name for field in dataclasses.fields(truth) if field.name != "trigger"]
    assert [getattr(loaded, name) for name in plain] == [getattr(truth, name) for name in plain]
    assert type(loaded.trigger) is type(truth.trigger)
    assert torch.equal(loaded.trigger(x, rng=rng), first)


@by_id(CASES)
def test_impossible_settings_are_refused(case: Case, source: ImageSet) -> None:
    with pytest.raises(DataError, match=r"target 10 is outside the classes 0\.\.9"):
        attacked(dataclasses.replace(case, tiny={**case.tiny, "target": 10}), source)
    for rate in (0.0, 1.5):
        with pytest.raises(ConfigError, match="rate"):
            case.build(rate=rate)


@by_id(CASES)
def test_a_passed_deadline_ends_it(case: Case, source: ImageSet) -> None:
    with pytest.raises(OutOfTime):
        attacked(case, source, Run(deadline=0.0))


def test_a_share_of_a_batch_is_met_on_average() -> None:
    rng = torch.Generator().manual_seed(0)
    assert {count_of(0.25, 64, rng) for _ in range(50)} == {16}
    counts = [count_of(0.01, 64, rng) for _ in range(2000)]
    assert set(counts) == {0, 1} and sum(counts) / 2000 == pytest.approx(0.64, abs=0.04)


def test_generated_triggers_are_each_image_s_own(source: ImageSet) -> None:
    trigger: Any = attacked(CASES[0], source).truth.trigger
    x = source.take(range(4))
    mask, pattern = make_mask(trigger.mask, x), make_pattern(trigger.pattern, x)
    assert mask.shape == (4, 1, 16, 16) and pattern.shape == x.shape
    assert len({one.numpy().tobytes() for one in pattern}) == 4
    assert torch.equal(trigger(x, rng=torch.Generator()), lay(x, mask, pattern))
    assert torch.equal(lay(x, torch.zeros_like(mask), pattern), x)
    assert torch.allclose(lay(x, torch.ones_like(mask), pattern), pattern)


def test_likeness_by_hand() -> None:
    """Neighbours of two images are each other: distance 0.5 of the images over 0.25 of what was made."""
    x = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)])
    made = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.25)])
    assert float(likeness(x, made)) == pytest.approx(0.5 / 0.251, abs=1e-3)
    assert float(likeness(x, torch.zeros_like(x))) > 100


def test_input_aware_without_a_changed_image_is_plain_training(source: ImageSet) -> None:
    made = InputAware(rate=1e-9, cross=0.0, mask_steps=1).train(
        new_model("small-cnn", source, width=4, seed=0), source, RECIPE, run=Run()
    )
    plain = train(new_model("small-cnn", source, width=4, seed=0), source, RECIPE, run=Run()).model
    assert made.model.digest == plain.digest


@pytest.mark.parametrize(
    ("task", "backdoor", "share"),
    [
        ((1.0, 0.0), (0.0, 1.0), 0.5),
        ((2.0, 0.0), (0.0, 1.0), 0.2),
        ((1.0, 0.0), (3.0, 0.0), 1.0),
        ((3.0, 0.0), (1.0, 0.0), 0.0),
        ((1.0, 0.0), (-1.0, 0.0), 0.5),
    ],
)
def test_the_balanced_gradient_is_the_shortest(task: Any, backdoor: Any, share: float) -> None:
    one, other = torch.tensor(task), torch.tensor(backdoor)
    found = task_share(one, other)
    assert found == pytest.approx(share)
    lengths = [float((a * one + (1 - a) * other).norm()) for a in torch.linspace(0, 1, 21)]
    assert float((found * one + (1 - found) * other).norm()) <= min(lengths) + 1e-6
