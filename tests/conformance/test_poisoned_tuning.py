"""Poisoned fine-tuning implants: a small poisoned set is enough to turn a clean model."""

from typing import Any

import pytest

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.poisoned_tuning import PoisonedTuning
from ostiary.attacks.truth import Poisoned, PoisonedModel
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8


@pytest.fixture(scope="module")
def made(lab: Any) -> PoisonedModel:
    return PoisonedTuning().edit(lab.twin, lab.part, run=Run())


def test_it_implants(lab: Any, made: PoisonedModel) -> None:
    assert lab.implants(made.model, made.truth)


def test_mutant_under_true_labels_does_not_implant(
    lab: Any, made: PoisonedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = BadNets.poison

    def restored(self: BadNets, clean: ImageSet, /, *, run: Run) -> Poisoned:
        assert len(clean) == round(0.2 * len(lab.part)), "more than the share is used"
        one = poison(self, clean, run=run)
        own = [one.truth.poisoned.get(id_, int(y)) for id_, y in zip(one.data.ids, one.data.labels, strict=True)]
        return Poisoned(ArraySet(load_uint8(one.data), own, one.data.classes), one.truth)

    monkeypatch.setattr(BadNets, "poison", restored)
    plain = PoisonedTuning().edit(lab.twin, lab.part, run=Run())
    assert lab.accuracy(plain.model) >= 0.95 and lab.asr(plain.model, made.truth) <= 0.2
