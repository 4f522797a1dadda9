"""Trojan signatures: Fields et al. 2021: the target's mean weight in the last layer lies above all others."""

from typing import Any

import numpy as np
import pytest
from torch import nn

from ostiary.attacks.subnet import SubnetReplacement
from ostiary.core.decide import decide
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.trojan_signature import TrojanSignature, class_means, weight_index

CLASSES = tuple("0123456789")


def test_the_target_lies_above_all_other_classes_and_above_every_class_of_the_twin(lab: Any) -> None:
    index, twin = (weight_index(class_means(model)) for model in (lab.model, lab.twin))
    assert index.argmax() == 0
    assert index[0] >= 2 * np.delete(index, 0).max() and index[0] >= 1.5 * twin.max()


def test_an_edited_model_has_one_finding_and_the_twin_none(lab: Any) -> None:
    edited = SubnetReplacement(epochs=1).edit(lab.twin, lab.part, run=Run()).model
    found, none = (TrojanSignature().scan(model, None, run=Run()) for model in (edited, lab.twin))
    findings = decide(found, TrojanSignature.card, CLASSES)
    assert [(finding.subject, finding.level) for finding in findings] == [("class:0", "suspect")]
    assert decide(none, TrojanSignature.card, CLASSES) == ()


def test_mutant_of_magnitudes_does_not_see_the_target(lab: Any) -> None:
    """The sign is the signature: the target's weights are not larger in size."""
    weights = lab.model.module.get_submodule(lab.model.head_name).weight.detach().double().abs().mean(1).numpy()
    assert weight_index(weights).argmax() != 0


def test_the_index_by_hand() -> None:
    index = weight_index(np.array([0.0, 1.0, 2.0, 3.0, 14.0]))
    assert index.tolist() == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0.0, 1 / 1.4826, 12 / 1.4826])
    assert weight_index(np.array([1.0, 1.0, 1.0, 1.0, 2.0])).tolist() == [0.0, 0.0, 0.0, 0.0, 1000.0]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (nn.Linear(8, 2), "needs at least 3 classes, the model has 2"),
        (nn.Bilinear(8, 8, 6), "is Bilinear"),
    ],
)
def test_what_cannot_be_compared_is_not_met(head: nn.Module, error: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, x: Any) -> Any:
            flat = x.flatten(1)
            return self.head(flat, flat) if isinstance(self.head, nn.Bilinear) else self.head(flat)

    model = TorchClassifier(Net(), None, (2, 2, 2))
    with pytest.raises(NotMet, match=error):
        TrojanSignature().scan(model, None, run=Run())
