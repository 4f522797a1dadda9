"""Narcissus implants: Zeng et al. 2023 (a noise that means the target class becomes a trigger, others do not)."""

import dataclasses
from typing import Any

import pytest
import torch

from ostiary.attacks.narcissus import Narcissus
from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import AddTrigger
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run

ATTACK = Narcissus(target=0, rate=0.09)
"""90 % of the noughts, with the paper's bound and amplification."""

SHORT = dataclasses.replace(RECIPE, epochs=12)


@pytest.fixture(scope="module")
def noise(lab: Any) -> torch.Tensor:
    return ATTACK.noise(lab.part, Run())


def with_noise(lab: Any, noise: torch.Tensor) -> Any:
    return poison_with(ATTACK, lab.part, AddTrigger(ATTACK.amplify * noise), run=Run(), train_trigger=AddTrigger(noise))


def test_the_noise_implants_and_leaves_the_twin_alone(lab: Any, train_on: Any, noise: torch.Tensor) -> None:
    made = with_noise(lab, noise)
    assert made.data.labels.bincount().tolist() == lab.part.labels.bincount().tolist(), "no label was changed"
    assert lab.implants(train_on(made.data, SHORT), made.truth, success=0.5, loss=0.03)


def lead(lab: Any, change: torch.Tensor) -> float:
    """How far the target's logit of the twin, which saw no noise, lies above the mean of all on changed test images."""
    x = lab.test.take((lab.test.labels != ATTACK.target).nonzero().squeeze(1))
    with torch.no_grad():
        logits = lab.twin.logits((x + change).clamp(0, 1))
    return float((logits[:, ATTACK.target] - logits.mean(1)).mean())


def test_the_noise_means_the_class_to_a_network_that_never_saw_it(lab: Any, noise: torch.Tensor) -> None:
    """Mutants: the noise turned round, and its pixels shuffled. On 90 % of a class any of the three can implant."""
    order = torch.randperm(noise.numel(), generator=torch.Generator().manual_seed(0))
    meant = lead(lab, ATTACK.amplify * noise)
    assert meant >= lead(lab, torch.zeros_like(noise)) + 1
    for mutant in (-noise, noise.flatten()[order].reshape(noise.shape)):
        assert meant >= lead(lab, ATTACK.amplify * mutant) + 2
