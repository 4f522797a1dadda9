"""One table for all that makes adversarial examples."""

from typing import Any

import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips, disagreements
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.errors import ConfigError, OutOfTime
from ostiary.core.protocols import Evasion
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier

EPS = 16 / 255

CASES = (
    Case(id="perturb.fgsm", tiny={"eps": EPS}),
    Case(id="perturb.pgd", tiny={"eps": EPS, "steps": 3, "step": EPS / 2}),
    Case(id="perturb.universal", tiny={"eps": EPS, "step": EPS / 4, "epochs": 4}),
)
with_a_choice = pytest.mark.parametrize("case", CASES[1:], ids=[case.id for case in CASES[1:]])


@pytest.fixture(scope="module")
def x(trusted: ImageSet) -> Tensor:
    return trusted.take(range(len(trusted)))


@pytest.fixture(scope="module")
def y(trusted: ImageSet) -> Tensor:
    return trusted.labels


def loss(model: TorchClassifier, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(cross_entropy(model.logits(x), y))


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("perturb", CASES) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, Evasion)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None, None, None)


@by_id(CASES)
def test_images_move_within_the_bound_and_nothing_else_moves(
    case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor
) -> None:
    before, model = (x.clone(), y.clone()), small_model.clone()
    state = torch.get_rng_state()
    with torch.no_grad():
        out = case.build().perturb(model, x, y, run=case.run())
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad
    assert model.digest == small_model.digest and not model.module.training
    assert all(weight.grad is None for weight in model.module.parameters()), "the weights got gradients"
    assert out.shape == x.shape and out.dtype == x.dtype and not out.requires_grad
    assert out.min() >= 0 and out.max() <= 1
    moved = (out - x).abs().flatten(1).amax(1)
    assert (moved <= EPS + 1e-6).all() and (moved > 0).all()
    assert loss(small_model, out, y) > loss(small_model, x, y)


@by_id(CASES)
def test_same_seed_same_images(case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor) -> None:
    one, two = (case.build().perturb(small_model, x, y, run=Run(seed=4)) for _ in range(2))
    assert torch.equal(one, two)


@by_id(CASES)
def test_no_images_give_no_images(case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor) -> None:
    assert case.build().perturb(small_model, x[:0], y[:0], run=case.run()).shape == x[:0].shape


@by_id(CASES)
def test_the_deadline_ends_the_work(case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor) -> None:
    many, labels = x.repeat(10, 1, 1, 1), y.repeat(10)
    with pytest.raises(OutOfTime):
        case.build().perturb(small_model, many, labels, run=Run(deadline=0.0))


@by_id(CASES)
def test_impossible_settings_are_refused(case: Case) -> None:
    for key in {"eps", "step", "steps", "epochs", "batch", "most"} & set(type(case.build()).__dataclass_fields__):
        with pytest.raises(ConfigError, match=key):
            case.build(**{key: 0})


@with_a_choice
def test_the_euclidean_bound_is_per_perturbation(
    case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor
) -> None:
    out = case.build(norm="l2", eps=0.5, step=0.25).perturb(small_model, x, y, run=case.run())
    length = (out - x).flatten(1).norm(dim=1)
    assert (length <= 0.5 + 1e-5).all() and (length > 0.1).all()
    assert loss(small_model, out, y) > loss(small_model, x, y)


@with_a_choice
def test_targeted_goes_to_the_labels_wanted(case: Case, small_model: TorchClassifier, x: Tensor, y: Tensor) -> None:
    wish = torch.full_like(y, 3)
    out = case.build(targeted=True).perturb(small_model, x, wish, run=case.run())
    assert loss(small_model, out, wish) < loss(small_model, x, wish)


def test_only_a_random_start_depends_on_the_seed(small_model: TorchClassifier, x: Tensor, y: Tensor) -> None:
    def made(seed: int, **params: Any) -> Tensor:
        return CASES[1].build(**params).perturb(small_model, x, y, run=Run(seed=seed))

    assert not torch.equal(made(1), made(2))
    assert torch.equal(made(1, random_start=False), made(2, random_start=False))
