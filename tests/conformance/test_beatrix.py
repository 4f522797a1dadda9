"""Beatrix: Ma et al. 2023; Gram matrices of poisoned samples leave the ranges of trusted ones of their label."""

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
from ostiary.data import ArraySet, load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.screen import beatrix
from ostiary.screen.beatrix import NEGLIGIBLE, Beatrix, Ranges, discrepancy, gram_matrices
from ostiary.screen.summary import suspects_of


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    """Beside the test images, 45 of each class: the paper takes thirty, and the lab's trusted part has 13."""
    return Beatrix().screen(lab.poisoned.data, lab.model, lab.test, run=Run())


def area(lab: Any, found: SampleScores) -> float:
    return float(roc_auc_score(lab.is_poisoned, found.scores.numpy()))


def accused(found: SampleScores) -> list[int]:
    return [row.label for row in found.per_class if exceeds(row, Beatrix.card.limits)]


def test_poison_leads_the_ranking_and_the_target_alone_is_accused(lab: Any, found: SampleScores) -> None:
    assert area(lab, found) >= 0.99
    assert accused(found) == [0]
    flagged = suspects_of(found, lab.poisoned.data, Beatrix.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).mean() <= 0.02


def test_the_unpoisoned_set_has_no_suspects(lab: Any) -> None:
    found = Beatrix().screen(lab.part, lab.twin, lab.test, run=Run())
    assert not suspects_of(found, lab.part, Beatrix.card).any()
    assert found.suspected.mean() <= 0.1, "the limit is that 5 % of trusted samples deviate more"


def as_strong(maps: Tensor) -> Tensor:
    """Activations scaled to the same largest value in every sample."""
    return maps / maps.abs().amax((1, 2), keepdim=True).clamp(min=1e-9)


def shuffled(maps: Tensor) -> Tensor:
    """Activations with the channels of each sample in an order of its own."""
    orders = [torch.randperm(maps.shape[1], generator=torch.Generator().manual_seed(n)) for n in range(len(maps))]
    return maps.gather(1, torch.stack(orders)[:, :, None].expand_as(maps))


def test_which_channels_fire_together_tells_without_how_strongly(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beatrix, "gram_matrices", lambda maps, orders: gram_matrices(as_strong(maps), orders))
    found = Beatrix().screen(lab.poisoned.data, lab.model, lab.test, run=Run())
    assert area(lab, found) >= 0.95
    assert accused(found) == [0]


def test_mutant_with_shuffled_channels_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beatrix, "gram_matrices", lambda maps, orders: gram_matrices(shuffled(as_strong(maps)), orders))
    found = Beatrix().screen(lab.poisoned.data, lab.model, lab.test, run=Run())
    assert area(lab, found) < 0.95
    assert accused(found) == []


def test_mutant_with_ranges_of_another_class_fails(lab: Any) -> None:
    moved = ArraySet(load_uint8(lab.test), (lab.test.labels + 1) % 10, lab.test.classes, lab.test.ids)
    assert accused(Beatrix().screen(lab.poisoned.data, lab.model, moved, run=Run())) != [0]


def test_gram_matrices_are_the_papers_formula() -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, -4.0]]])
    first, second, third = gram_matrices(maps, 3)[0]
    assert first.tolist() == pytest.approx([1 + 4, 3 - 8, 9 + 16])
    assert second.tolist() == pytest.approx([17**0.5, (9 + 64) ** 0.5, (81 + 256) ** 0.5])
    assert third.tolist() == pytest.approx([65 ** (1 / 3), -((512 - 27) ** (1 / 3)), (729 + 4096) ** (1 / 3)])


def test_high_orders_of_large_activations_stay_finite() -> None:
    maps = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    large = gram_matrices(maps * 1e6, 8)
    assert torch.allclose(large, gram_matrices(maps, 8) * 1e12, rtol=1e-4)


def test_with_one_position_all_orders_are_the_same() -> None:
    """Why the layer is not the input of the last, linear one."""
    one = gram_matrices(torch.rand(4, 3, 1, generator=torch.Generator().manual_seed(0)), 8)
    assert torch.allclose(one[:, 0], one[:, 7], rtol=1e-4)
    several = gram_matrices(torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)), 8)
    assert not torch.allclose(several[:, 0], several[:, 7], rtol=0.1)


def test_a_deviation_is_the_excess_over_a_bound_as_a_share_of_it() -> None:
    trusted = torch.tensor([[9.9], [10.0], [10.1]]).unsqueeze(1)
    ranges = Ranges.of(trusted, 10.0)
    assert (ranges.low.item(), ranges.high.item()) == pytest.approx((9.0, 11.0))
    grams = torch.tensor([[9.0], [11.0], [22.0], [4.5]]).unsqueeze(1)
    unit = NEGLIGIBLE * 10.0
    assert ranges.deviation(grams).tolist() == pytest.approx([0, 0, 11 / (11 + unit), 4.5 / (9 + unit)], abs=1e-6)


def test_the_discrepancy_is_that_of_kernel_means() -> None:
    one, other = np.array([[0.0], [1.0]]), np.array([[3.0], [4.0], [5.0]])

    def kernel(a: float, b: float, middle: float) -> float:
        return float(np.exp(-((a - b) ** 2) / middle) + np.exp(-2 * (a - b) ** 2 / middle))

    both = np.concatenate([one, other])[:, 0]
    middle = float(np.median((both[:, None] - both) ** 2))
    means = [
        np.mean([kernel(a, b, middle) for a in p[:, 0] for b in q[:, 0]]) for p in (one, other) for q in (one, other)
    ]
    expected = (means[0] + means[3] - means[1] - means[2]) * 2 * 3 / (2 + 3)
    assert discrepancy(one, other) == pytest.approx(expected)
    assert discrepancy(one, one) == pytest.approx(0.0, abs=1e-12)
    assert discrepancy(one[:0], other) == 0.0


def test_what_it_cannot_screen_is_told(lab: Any) -> None:
    few = lab.test.subset(range(30))
    with pytest.raises(NotMet, match="trusted samples of every class"):
        Beatrix().screen(lab.part, lab.twin, few, run=Run())
    flat = TorchClassifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), lab.part.classes, (3, 32, 32))
    with pytest.raises(NotMet, match="no last convolution"):
        Beatrix().screen(lab.part, flat, lab.test, run=Run())
    shallow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    with pytest.raises(NotMet, match="the image itself"):
        Beatrix().screen(lab.part, TorchClassifier(shallow, lab.part.classes, (3, 32, 32)), lab.test, run=Run())
