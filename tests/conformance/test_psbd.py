"""PSBD (Li et al. 2025): under dropout honest predictions shift, triggered ones stay."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ostiary.core.decide import exceeds
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.screen.psbd import RATES, Psbd, best_rate, blocks_of, dropping
from ostiary.screen.summary import suspects_of


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return Psbd().screen(lab.poisoned.data, lab.model, lab.trusted, run=Run())


def area(lab: Any, found: SampleScores) -> float:
    return float(roc_auc_score(lab.is_poisoned, found.scores.numpy()))


def test_poison_keeps_its_prediction_and_its_class_alone_is_accused(lab: Any, found: SampleScores) -> None:
    assert area(lab, found) >= 0.85
    assert lab.is_poisoned[found.suspected].sum() >= 0.6 * lab.is_poisoned.sum()
    # The share of the target below the limit, three quarters and more, lies about the 85 % that accuse a class.
    assert [row.label for row in found.per_class if exceeds(row, Psbd.card.limits)] in ([0], [])
    assert max(found.per_class, key=lambda row: row.measures["steady"]).label == 0


def test_no_class_of_the_unpoisoned_set_is_accused_though_a_quarter_is_low(lab: Any) -> None:
    found = Psbd().screen(lab.part, lab.twin, lab.trusted, run=Run())
    assert 0.1 <= found.suspected.mean() <= 0.5, "the limit lies amid honest samples"
    assert not suspects_of(found, lab.part, Psbd.card).any()


def test_mutant_that_drops_nothing_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostiary.screen import psbd as module

    monkeypatch.setattr(module, "blocks_of", lambda _: [nn.Identity()])
    assert area(lab, Psbd().screen(lab.poisoned.data, lab.model, lab.trusted, run=Run())) < 0.85


def test_uncertainty_by_hand() -> None:
    """One convolution that is the identity: the passes are softmaxes of dropped and scaled pixels."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    model = TorchClassifier(nn.Sequential(layer, nn.Flatten()), 4, (1, 2, 2))
    pixels = torch.tensor([[250, 20, 10, 0], [0, 90, 80, 70]], dtype=torch.uint8).reshape(2, 1, 2, 2)
    psu, shifted = Psbd(passes=2)._uncertainty(model, [layer], ArraySet(pixels, [0, 1]), 0.5, Run(seed=7))
    rng, values = Run(seed=7).generator("psbd-0.5-2"), pixels.float().reshape(2, 4) / 255
    passes = [(values * (torch.rand(2, 1, 2, 2, generator=rng) >= 0.5).reshape(2, 4) * 2).softmax(1) for _ in range(2)]
    top, mean = torch.tensor([0, 1]), torch.stack(passes).mean(0)
    assert psu == pytest.approx((values.softmax(1) - mean)[torch.arange(2), top].numpy(), abs=1e-6)
    assert shifted == np.mean([(one.argmax(1) != top).float().mean() for one in passes])


def test_dropping_keeps_the_mean_and_leaves_no_hook() -> None:
    layer, ones = nn.Identity(), torch.ones(100_000)
    with dropping([layer], 0.3, torch.Generator().manual_seed(0)):
        dropped: Tensor = layer(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    with pytest.raises(TypeError), dropping([layer], 0.3, torch.Generator()):
        layer(1, 2)
    assert torch.equal(layer(ones), ones)


@pytest.mark.parametrize(
    ("trusted", "suspect", "chosen"),
    [
        ([0, 0.1, 0.3, 0.5, 0.7, 0.82, 0.9, 0.9, 0.9], [0, 0, 0, 0, 0.6, 0.8, 0.8, 0.88, 0.9], 0.7),
        ([0, 0.1, 0.3, 0.5, 0.7, 0.7, 0.7, 0.7, 0.7], [0, 0, 0, 0, 0.6, 0.6, 0.6, 0.6, 0.6], 0.4),
    ],
)
def test_the_rate_has_the_widest_gap_among_those_that_shift_most_trusted_predictions(
    trusted: list[float], suspect: list[float], chosen: float
) -> None:
    """The widest gap of all, at a rate of 0.4, counts only where no rate shifts 80 % of trusted predictions."""
    assert best_rate(np.array([suspect, trusted]).T) == chosen
    assert RATES[0] == 0.1 and RATES[-1] == 0.9


@pytest.mark.parametrize(
    ("arch", "places", "kind"),
    [
        ("small-cnn", 4, nn.BatchNorm2d),
        ("vgg11-bn", 8, nn.BatchNorm2d),
        ("resnet18", 8, nn.Module),
        ("preact-resnet18", 8, nn.Module),
        ("wrn-16-1", 6, nn.Module),
    ],
)
def test_features_are_dropped_after_every_block(arch: str, places: int, kind: type[nn.Module]) -> None:
    model = TorchClassifier(build(arch, 10, width=4), 10, (3, 32, 32))
    found = blocks_of(model)
    assert len(found) == places and all(isinstance(one, kind) for one in found)


def test_a_convolution_without_normalisation_ends_a_block_itself_and_a_model_without_any_is_refused(lab: Any) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 28 * 28, 10))
    assert blocks_of(TorchClassifier(plain, 10, (3, 32, 32))) == [plain[0], plain[2]]
    flat = TorchClassifier(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 10, (3, 32, 32))
    with pytest.raises(NotMet, match="convolutions"):
        Psbd().screen(lab.part, flat, lab.trusted, run=Run())
