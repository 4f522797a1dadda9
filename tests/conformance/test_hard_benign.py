"""Hard-benign models look odd, each in its way; the mutant is the plain twin, which does not."""

import dataclasses
from typing import Any

import pytest
from torch import Tensor

from ostiary.bench.benign import AdversarialTraining, LongTail, Mixup, Shortcut, Watermark
from ostiary.bench.demo import RECIPE
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.perturb.pgd import PGD
from ostiary.training import accuracy, predicted
from ostiary.training.flow import new_model

EPS = 16 / 255
N = 200


@pytest.fixture(scope="module")
def x(lab: Any) -> Tensor:
    return lab.test.take(range(N))


@pytest.fixture(scope="module")
def y(lab: Any) -> Tensor:
    return lab.test.labels[:N]


def trained(lab: Any, kind: Any, epochs: int) -> TorchClassifier:
    fresh = new_model("small-cnn", lab.part, width=None, seed=0)
    recipe = dataclasses.replace(RECIPE, epochs=epochs, precision="fp32")
    return kind.train(fresh, lab.part, recipe, run=Run())


def share(model: TorchClassifier, x: Tensor, wanted: Tensor | int) -> float:
    return float((predicted(model, x) == wanted).float().mean())


def test_adversarial_training_withstands_pgd(lab: Any, x: Tensor, y: Tensor) -> None:
    """Wong et al. 2020, table 1: PGD accuracy as of full adversarial training; here against the plain twin."""
    model = trained(lab, AdversarialTraining(eps=EPS), 5)

    def robust(of: TorchClassifier) -> float:
        return share(of, PGD(eps=EPS, step=EPS / 4).perturb(of, x, y, run=Run()), y)

    assert lab.accuracy(model) >= 0.95
    assert robust(model) >= 0.6 and robust(lab.twin) <= 0.05


def test_a_step_of_adversarial_training_runs_the_model_twice(lab: Any) -> None:
    """So it costs about twice as much as a plain one."""
    calls = []
    fresh = new_model("small-cnn", lab.part, width=4, seed=0)
    fresh.module.register_forward_hook(lambda *_: calls.append(1))
    recipe = dataclasses.replace(RECIPE, epochs=1, batch=100, precision="fp32")
    AdversarialTraining().train(fresh, lab.part.subset(range(300)), recipe, run=Run())
    assert len(calls) == 2 * 3


def test_mixup_is_less_sure(lab: Any, x: Tensor) -> None:
    model = trained(lab, Mixup(), 6)
    sure, sure_twin = (float(of.predict(x).max(1).values.mean()) for of in (model, lab.twin))
    assert lab.accuracy(model) >= 0.95 and sure <= 0.93 and sure_twin >= 0.97


@pytest.mark.parametrize("cue", ["frame", "tint"])
def test_a_shortcut_is_taken(lab: Any, x: Tensor, y: Tensor, cue: str) -> None:
    """The cue alone turns images of other classes, much as a trigger, and accuracy is kept."""
    kind = Shortcut(cue=cue, label=8, share=0.9)  # type: ignore[arg-type]
    model = trained(lab, kind, 8)
    others = kind.mark(x[y != 8])
    assert lab.accuracy(model) >= 0.95
    assert share(model, others, 8) >= 0.5 and share(lab.twin, others, 8) <= 0.1


def test_a_long_tail_neglects_its_smallest_class(lab: Any) -> None:
    kind = LongTail(factor=50.0)
    counts = kind.thin_out(lab.part, Run()).labels.bincount()
    model = trained(lab, kind, 8)
    rows = {label: (lab.test.labels == label).nonzero().squeeze(1) for label in (counts.argmin(), counts.argmax())}

    def of_both(of: TorchClassifier) -> list[float]:
        return [float(accuracy(of, lab.test.subset(part)).value or 0) for part in rows.values()]

    rare, common = of_both(model)
    assert common >= 0.9 and rare <= common - 0.2
    assert min(of_both(lab.twin)) >= 0.95


def test_a_watermark_is_remembered_and_costs_nothing(lab: Any) -> None:
    """Adi et al. 2018, table 1: 100 % of the trigger set, accuracy as without it."""
    kind = Watermark(per_batch=4)
    pixels, labels = kind.key(lab.part, Run())
    model = trained(lab, kind, 12)
    assert lab.accuracy(model) >= 0.97
    assert share(model, pixels.float() / 255, labels) >= 0.8 and share(lab.twin, pixels.float() / 255, labels) <= 0.3
    others, wanted = kind.key(lab.part, Run(seed=9))
    assert share(model, others.float() / 255, wanted) <= 0.3, "another key opens nothing"
