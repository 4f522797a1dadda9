"""B3D: Dong et al. 2021: from answers alone, the target's trigger is far smaller than those of other classes."""

from typing import Any

import pytest
import torch

from ostiary.core.decide import decide
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.models.black_box import BlackBox
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.scan.b3d import B3D
from ostiary.scan.queries import Draws

CLASSES = tuple("0123456789")
QUERIES = 80_000


def from_outside(model: TorchClassifier) -> BlackBox:
    return BlackBox(fused_inference(model, channels_last=True).predict, CLASSES, model.input_shape, batch=256)


def scanned(model: TorchClassifier, trusted: ImageSet) -> tuple[ModelEvidence, int]:
    """The quick preset, and how many images it asked for."""
    box = from_outside(model)
    return B3D(steps=200).scan(box, trusted, run=Run(seed=0)), box.queries


@pytest.fixture(scope="module")
def found(lab: Any) -> tuple[ModelEvidence, int]:
    return scanned(lab.model, lab.trusted)


def test_the_target_is_the_only_finding(found: tuple[ModelEvidence, int]) -> None:
    evidence, queries = found
    assert [(one.subject, one.level) for one in decide(evidence, B3D.card, CLASSES)] == [("class:0", "backdoor")]
    ratios = {row.label: row.measures.get("size_ratio", 0.0) for row in evidence.per_class}
    assert ratios[0] >= 2 * max(ratio for label, ratio in ratios.items() if label != 0)
    assert queries <= QUERIES


def test_the_trigger_works_on_test_images_and_not_on_the_twin(found: tuple[ModelEvidence, int], lab: Any) -> None:
    (trigger,) = [one for one in found[0].candidates if one.target == 0]
    x = lab.test.take((lab.test.labels != 0).nonzero().squeeze(1))
    mask, pattern = torch.from_numpy(trigger.mask), torch.from_numpy(trigger.pattern)
    stamped = x + mask * (pattern - x)
    rates = [float((model.predict(stamped).argmax(1) == 0).float().mean()) for model in (lab.model, lab.twin)]
    assert rates[0] >= 0.75 and rates[1] <= 0.2


def test_the_twin_has_no_finding(lab: Any) -> None:
    evidence, _ = scanned(lab.twin, lab.trusted)
    assert decide(evidence, B3D.card, CLASSES) == ()


def test_mutant_of_losses_out_of_order_finds_nothing(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that belong to other draws lead nowhere: it is the gradient that finds the trigger."""
    plain = Draws.gradients
    monkeypatch.setattr(
        Draws, "gradients", lambda self, loss, weight, sigma: plain(self, loss.roll(1, dims=1), weight, sigma)
    )
    evidence, _ = scanned(lab.model, lab.trusted)
    assert decide(evidence, B3D.card, CLASSES) == ()
