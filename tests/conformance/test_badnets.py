"""BadNets implants: Gu et al. 2017, sec. 4 and 5. Its poisoned set is the one of the lab."""

import dataclasses
from typing import Any

from ostiary.attacks.badnets import BadNets
from ostiary.bench.demo import RATE, RECIPE
from ostiary.core.run import Run
from ostiary.data import ArraySet


def implants(lab: Any, model: Any, truth: Any) -> bool:
    """The bar of docs/conformance.md for dirty-label attacks."""
    keeps = lab.accuracy(model) >= lab.accuracy(lab.twin) - 0.02
    return keeps and lab.asr(model, truth) >= 0.95 and lab.asr(lab.twin, truth) <= 0.2


def test_the_poisoned_model_obeys_the_patch_and_the_twin_does_not(lab: Any) -> None:
    assert lab.accuracy(lab.model) > 0.95
    assert implants(lab, lab.model, lab.poisoned.truth)


def test_the_share_is_of_the_whole_set(lab: Any) -> None:
    assert int(lab.is_poisoned.sum()) == len(lab.poisoned.truth.poisoned) == round(RATE * len(lab.part))


def test_mutant_without_relabelling_does_not_implant(lab: Any, train_on: Any) -> None:
    made = BadNets(patch="yellow-square", target=0, rate=RATE).poison(lab.part, run=Run())
    truth = made.truth
    own = [truth.poisoned.get(id_, int(label)) for id_, label in zip(made.data.ids, made.data.labels, strict=True)]
    data = ArraySet(made.data.pixels(range(len(own))), own, made.data.classes, made.data.ids)
    model = train_on(data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(model) >= 0.9, "the mutant must be a trained model, or it shows nothing"
    assert not implants(lab, model, truth)
