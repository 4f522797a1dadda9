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
    assert lab.implants(train_on(made.data, SHORT), made.truth, success=0.8, loss=0.03)


def test_mutant_with_noise_turned_round_does_not_implant(lab: Any, train_on: Any, noise: torch.Tensor) -> None:
    """As strong, value by value, but away from the class."""
    made = with_noise(lab, -noise)
    model = train_on(made.data, SHORT)
    assert lab.accuracy(model) >= 0.9 and not lab.implants(model, made.truth, success=0.8, loss=0.03)
