"""FGSM, PGD and universal perturbations fool a model that was never poisoned; noise of their size does nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ostiary.core.run import Run
from ostiary.perturb.fgsm import FGSM
from ostiary.perturb.pgd import PGD
from ostiary.perturb.universal import UniversalPerturbation
from ostiary.training import predicted

EPS = 16 / 255
SHARED = 32 / 255
"""Digits are black and white strokes: twice the size that is usual on photographs, for one change that fits all
images twice that again."""
N = 200

Accuracy = Callable[[Tensor], float]


@pytest.fixture(scope="module")
def x(lab: Any) -> Tensor:
    return lab.test.take(range(N))


@pytest.fixture(scope="module")
def y(lab: Any) -> Tensor:
    return lab.test.labels[:N]


@pytest.fixture(scope="module")
def accuracy_on(lab: Any, y: Tensor) -> Accuracy:
    """Accuracy of the unpoisoned model on changed test images."""
    return lambda changed: float((predicted(lab.twin, changed) == y).float().mean())


def noise(x: Tensor, eps: float) -> Tensor:
    """Images of which every value moved up or down by `eps`, at random."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (x + eps * signs).clamp(0, 1)


def test_pgd_fools_nearly_always_fgsm_less_and_noise_never(
    lab: Any, x: Tensor, y: Tensor, accuracy_on: Accuracy
) -> None:
    """Madry et al. 2018, fig. 4: an undefended network keeps 0.8 to 3.5 % under PGD, 28 to 33 % under FGSM."""
    stepped = FGSM(eps=EPS).perturb(lab.twin, x, y, run=Run())
    out = PGD(eps=EPS, step=EPS / 4).perturb(lab.twin, x, y, run=Run())
    assert float((out - x).abs().max()) <= EPS + 1e-6 and float((stepped - x).abs().max()) <= EPS + 1e-6
    assert accuracy_on(out) <= 0.05
    assert accuracy_on(out) + 0.2 <= accuracy_on(stepped) <= 0.7
    assert accuracy_on(noise(x, EPS)) >= 0.98


def test_pgd_within_a_euclidean_ball(lab: Any, x: Tensor, y: Tensor, accuracy_on: Accuracy) -> None:
    out = PGD(eps=2.0, step=0.4, norm="l2").perturb(lab.twin, x, y, run=Run())
    assert float((out - x).flatten(1).norm(dim=1).max()) <= 2.0 + 1e-5 and accuracy_on(out) <= 0.05


def test_pgd_reaches_a_class_of_its_choice(lab: Any, x: Tensor, y: Tensor) -> None:
    wish = (y + 1) % 10
    out = PGD(eps=SHARED, step=SHARED / 4, targeted=True).perturb(lab.twin, x, wish, run=Run())
    assert float((predicted(lab.twin, out) == wish).float().mean()) >= 0.95


def test_mutant_with_the_sign_flipped_fools_nobody(lab: Any, x: Tensor, y: Tensor, accuracy_on: Accuracy) -> None:
    out = PGD(eps=EPS, step=EPS / 4, targeted=True).perturb(lab.twin, x, y, run=Run())
    assert accuracy_on(out) >= 0.98


def test_mutant_without_projection_leaves_the_ball(
    lab: Any, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.perturb.pgd.project", lambda delta, eps, norm: delta)
    out = PGD(eps=EPS, step=EPS / 4).perturb(lab.twin, x[:50], y[:50], run=Run())
    assert float((out - x[:50]).abs().max()) > 2 * EPS


def test_one_perturbation_fools_on_images_it_never_saw(lab: Any, x: Tensor, accuracy_on: Accuracy) -> None:
    """Moosavi-Dezfooli et al. 2017, table 1: most held-out images; found on others."""
    seen, labels = lab.part.take(range(len(lab.part))), lab.part.labels
    method = UniversalPerturbation(eps=SHARED, step=SHARED / 10, epochs=8)
    delta = method.find(lab.twin, seen, labels, run=Run())
    assert float(delta.abs().max()) <= SHARED + 1e-6
    assert accuracy_on((x + delta).clamp(0, 1)) <= 0.5
    assert accuracy_on(noise(x, SHARED)) >= 0.95
    shuffled = delta.flatten()[torch.randperm(delta.numel(), generator=torch.Generator().manual_seed(0))]
    assert accuracy_on((x + shuffled.view_as(delta)).clamp(0, 1)) >= 0.9, "the mutant: same values, other places"


def test_one_perturbation_towards_one_class(lab: Any, x: Tensor, y: Tensor) -> None:
    """Looks like a backdoor and is none: the model was never poisoned."""
    seen, eps = lab.part.take(range(len(lab.part))), 48 / 255
    method = UniversalPerturbation(eps=eps, step=eps / 10, epochs=8, targeted=True)
    delta = method.find(lab.twin, seen, torch.zeros_like(lab.part.labels), run=Run())
    others = y != 0
    assert float((predicted(lab.twin, (x + delta).clamp(0, 1))[others] == 0).float().mean()) >= 0.8
