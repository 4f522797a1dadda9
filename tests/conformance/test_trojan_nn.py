"""TrojanNN implants: Liu et al. 2018, table II, and its patch drives the neurons it was made for (sec. IV)."""

from typing import Any

import pytest
import torch

from ostiary.attacks.trojan_nn import TrojanNN, connected, conv_from_end
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.run import Run

ATTACK = TrojanNN()


@pytest.fixture(scope="module")
def made(lab: Any) -> PoisonedModel:
    return ATTACK.edit(lab.twin, lab.part, run=Run())


def driven(lab: Any, x: torch.Tensor) -> torch.Tensor:
    """How high the chosen neurons of the twin are on each image, [n]."""
    layer = conv_from_end(lab.twin, ATTACK.layer)
    with torch.no_grad():
        maps = lab.twin.activations(x, [layer])[layer]
    return maps[:, connected(lab.twin, layer, ATTACK.neurons)].mean((1, 2, 3))


def stamped(lab: Any, made: PoisonedModel) -> torch.Tensor:
    """Test images with the patch."""
    found: torch.Tensor = made.truth.trigger(lab.test.take(range(200)), rng=torch.Generator())  # type: ignore[misc]
    return found


def test_it_implants(lab: Any, made: PoisonedModel) -> None:
    assert lab.implants(made.model, made.truth)


def test_the_patch_drives_its_neurons_on_images_it_never_saw(lab: Any, made: PoisonedModel) -> None:
    """Measured in standard deviations of these neurons over images without the patch."""
    plain = driven(lab, lab.test.take(range(200)))
    undriven = TrojanNN(steps=1, epochs=1).edit(lab.twin, lab.part.subset(range(64)), run=Run())
    up, mutant = ((driven(lab, stamped(lab, one)) - plain).mean() / plain.std() for one in (made, undriven))
    assert up > 1.0 and mutant < up / 2, "the mutant: a random patch"


def test_layers_before_the_neurons_stay(lab: Any, made: PoisonedModel) -> None:
    before, after = (dict(model.module.named_parameters()) for model in (lab.twin, made.model))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert {name.rsplit(".", 1)[0] for name in changed} == {"features.9", "features.12", "features.13", "classifier"}


def test_mutant_without_stamped_images_does_not_implant(lab: Any, made: PoisonedModel) -> None:
    plain = TrojanNN(rate=1e-9).edit(lab.twin, lab.part, run=Run())
    assert lab.accuracy(plain.model) >= 0.95 and not lab.implants(plain.model, made.truth)
