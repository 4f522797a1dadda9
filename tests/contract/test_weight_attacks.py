"""One table for the attacks that edit a trained model."""

import dataclasses
from pathlib import Path

import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips

from ostiary.attacks.triggers import tensors_of
from ostiary.attacks.truth import PoisonedModel, load_truth, save_truth
from ostiary.core.errors import ConfigError, DataError, OutOfTime
from ostiary.core.execute import params_of
from ostiary.core.protocols import WeightAttack
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier

CASES = (
    Case(id="attack.trojan-nn", tiny={"rate": 0.2, "target": 1, "size": 4, "steps": 3, "epochs": 1}),
    Case(id="attack.poisoned-tuning", tiny={"rate": 0.2, "target": 1, "share": 0.5, "epochs": 1}),
    Case(id="attack.subnet", tiny={"rate": 0.2, "target": 1, "epochs": 1}),
)


@pytest.fixture(scope="module")
def source(trusted: ImageSet) -> ImageSet:
    """A hundred digits at 16x16."""
    return trusted.subset(range(100))


def attacked(case: Case, source: ImageSet, model: TorchClassifier, run: Run | None = None) -> PoisonedModel:
    """What the attack makes of `model`."""
    made: PoisonedModel = case.build().edit(model, source, run=run or case.run())
    return made


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, WeightAttack)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, call="edit")


@by_id(CASES)
def test_it_gives_a_model_and_its_truth_and_leaves_its_inputs_alone(
    case: Case, source: ImageSet, small_model: TorchClassifier
) -> None:
    model_before, set_before = small_model.digest, source.digest
    made = attacked(case, source, small_model)
    assert (small_model.digest, source.digest) == (model_before, set_before)
    assert made.model.digest != model_before and not made.model.module.training
    assert all(weight.requires_grad for weight in made.model.module.parameters())
    assert made.model.input_shape == source.shape and tuple(made.model.classes) == tuple(source.classes)
    truth = made.truth
    assert truth.attack == case.id and truth.params == params_of(case.build())
    assert (truth.poisoned, truth.covers, truth.source_digest) == ({}, (), source.digest)
    assert (truth.mapping, truth.target, truth.rate, truth.seed) == ("all-to-one", 1, case.tiny["rate"], 3)
    assert truth.trigger is not None and truth.trigger.shape == source.shape


@by_id(CASES)
def test_a_seed_is_a_model(case: Case, source: ImageSet, small_model: TorchClassifier) -> None:
    state = torch.get_rng_state()
    one, same, other = (attacked(case, source, small_model, Run(seed=seed)) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert one.model.digest == same.model.digest != other.model.digest
    first, second = (tensors_of(made.truth.trigger) for made in (one, same))
    assert all(torch.equal(first[name], second[name]) for name in first)


@by_id(CASES)
def test_the_trigger_is_pure_and_comes_back_as_it_was(
    case: Case, source: ImageSet, small_model: TorchClassifier, tmp_path: Path
) -> None:
    truth = attacked(case, source, small_model).truth
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
def test_impossible_settings_are_refused(case: Case, source: ImageSet, small_model: TorchClassifier) -> None:
    with pytest.raises(DataError, match=r"target 10 is outside the classes 0\.\.9"):
        attacked(dataclasses.replace(case, tiny={**case.tiny, "target": 10}), source, small_model)
    for rate in (0.0, 1.5):
        with pytest.raises(ConfigError, match="rate"):
            case.build(rate=rate)


@by_id(CASES)
def test_a_passed_deadline_ends_it(case: Case, source: ImageSet, small_model: TorchClassifier) -> None:
    before = small_model.digest
    with pytest.raises(OutOfTime):
        attacked(case, source, small_model, Run(deadline=0.0))
    assert small_model.digest == before
