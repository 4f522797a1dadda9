"""B3D: Dong et al. 2021: from answers alone, the target's trigger is far smaller than those of other classes.

On digits of 16x16 and a narrow network, for the queries' sake: other checks share a larger one.
"""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import avg_pool2d

from ostiary.attacks.badnets import BadNets
from ostiary.bench.demo import RECIPE
from ostiary.bench.metrics import attack_rates
from ostiary.core.decide import decide
from ostiary.core.records import Finding, ModelEvidence
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, digits, load_uint8, split
from ostiary.models.black_box import BlackBox
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.scan.b3d import B3D
from ostiary.scan.queries import Draws
from ostiary.training import train
from ostiary.training.flow import new_model

CLASSES = tuple("0123456789")
TARGET, SEED = 0, 0


@dataclass(frozen=True)
class Pair:
    """A poisoned model, its twin, and what a defender has."""

    model: TorchClassifier
    twin: TorchClassifier
    trusted: ImageSet
    test: ImageSet


def small(part: str) -> ImageSet:
    data = digits(part)
    pixels = avg_pool2d(load_uint8(data).float(), 2).round().to(torch.uint8)
    return ArraySet(pixels, data.labels, data.classes, data.ids, name=f"digits16:{part}")


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A tenth of the digits with a yellow square of 2x2 pixels and label 0."""
    part, trusted = split(small("train"), (0.9, 0.1), seed=SEED)
    poisoned = BadNets(target=TARGET, size=2, rate=0.1).poison(part, run=Run(seed=SEED))
    recipe = dataclasses.replace(RECIPE, epochs=10, precision="fp32")
    model, twin = (
        train(new_model("small-cnn", data, width=8, seed=SEED), data, recipe, run=Run(seed=SEED)).model
        for data in (poisoned.data, part)
    )
    success = attack_rates(model, small("test"), poisoned.truth, run=Run()).success.value
    assert success is not None and success >= 0.95
    return Pair(model, twin, trusted, small("test"))


def scanned(model: TorchClassifier, trusted: ImageSet) -> tuple[ModelEvidence, int]:
    """A search by answers alone on cells of 2x2 pixels, and how many images it asked for."""
    box = BlackBox(fused_inference(model, channels_last=True).predict, CLASSES, model.input_shape, batch=256)
    return B3D(steps=200, cells=8).scan(box, trusted, run=Run(seed=SEED)), box.queries


def findings(evidence: ModelEvidence) -> tuple[Finding, ...]:
    return decide(evidence, B3D.card, CLASSES)


@pytest.fixture(scope="module")
def found(pair: Pair) -> tuple[ModelEvidence, int]:
    return scanned(pair.model, pair.trusted)


def test_the_target_is_the_only_finding(found: tuple[ModelEvidence, int]) -> None:
    evidence, queries = found
    assert [(one.subject, one.level) for one in findings(evidence)] == [("class:0", "suspect")]
    ratios = {row.label: row.measures.get("size_ratio", 0.0) for row in evidence.per_class}
    assert ratios[TARGET] >= 1.5 * max(ratio for label, ratio in ratios.items() if label != TARGET)
    assert queries <= 75_000


def test_the_trigger_works_on_test_images_and_not_on_the_twin(found: tuple[ModelEvidence, int], pair: Pair) -> None:
    (trigger,) = [one for one in found[0].candidates if one.target == TARGET]
    x = pair.test.take((pair.test.labels != TARGET).nonzero().squeeze(1))
    mask, pattern = torch.from_numpy(trigger.mask), torch.from_numpy(trigger.pattern)
    stamped = x + mask * (pattern - x)
    rates = [float((model.predict(stamped).argmax(1) == TARGET).float().mean()) for model in (pair.model, pair.twin)]
    assert rates[0] >= 0.75 and rates[1] <= 0.2


def test_the_twin_has_no_finding(pair: Pair) -> None:
    assert findings(scanned(pair.twin, pair.trusted)[0]) == ()


def test_mutant_of_losses_out_of_order_finds_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that belong to other draws lead nowhere: it is their gradient that finds the trigger."""
    plain = Draws.gradients
    monkeypatch.setattr(
        Draws, "gradients", lambda self, loss, weight, sigma: plain(self, loss.roll(1, dims=1), weight, sigma)
    )
    assert findings(scanned(pair.model, pair.trusted)[0]) == ()
