"""SCALE-UP's consistency against hand-made numbers, and that an input's score is its own."""

import pytest
import torch
from torch import Tensor

from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.guard import fitted as shared
from ostiary.guard.scale_up import LEAST_SPREAD, FittedScaleUp, ScaleUp


class Bright:
    """Answers with labels alone: whether an image is brighter than one half."""

    classes, digest = ("dark", "bright"), "bright"

    def predict(self, x: Tensor, /) -> Tensor:
        bright = (x.mean((1, 2, 3)) > 0.5).float()
        return torch.stack([1 - bright, bright], 1)


class Even:
    """As sure of the first of two classes as an image is dark."""

    classes, digest = ("dark", "bright"), "even"

    def predict(self, x: Tensor, /) -> Tensor:
        p = x.mean((1, 2, 3))
        return torch.stack([1 - p, p], 1)


def flat(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()


def guard(*usual: tuple[float, float], factors: tuple[float, ...] = ScaleUp().factors) -> FittedScaleUp:
    return FittedScaleUp(torch.tensor(factors), torch.tensor(usual or [(0.0, 1.0)] * 2), 0.0, "")


def test_consistency_is_the_share_of_copies_that_keep_the_label() -> None:
    """0.04 stays dark up to 11 times; 0.12 up to 4 times; 0.3 never; what is bright stays so: none is beyond white."""
    p, kept = guard().consistency(Bright(), flat(0.04, 0.12, 0.3, 0.7))
    assert kept.tolist() == pytest.approx([1.0, 0.3, 0.0, 1.0])
    assert p.argmax(1).tolist() == [0, 0, 0, 1]


def test_where_there_are_probabilities_they_count() -> None:
    """Twice and thrice 0.2 leave 0.6 and 0.4 of the first class; 0.6 is white at twice already."""
    p, kept = guard(factors=(2.0, 3.0)).consistency(Even(), flat(0.2, 0.6))
    assert kept.tolist() == pytest.approx([0.5, 1.0]) and p[:, 0].tolist() == pytest.approx([0.8, 0.4])


def test_a_score_is_in_standard_deviations_of_the_predicted_class() -> None:
    scores = guard((0.2, 0.1), (0.5, 0.25)).score(Bright(), flat(0.12, 0.7))
    assert scores.tolist() == pytest.approx([(0.3 - 0.2) / 0.1, (1.0 - 0.5) / 0.25])


def test_what_is_usual_is_told_class_by_class() -> None:
    """Dark inputs keep their label in three copies of ten or in all, bright ones in all: their spread is the least."""
    levels = torch.tensor([10, 30, 180, 200]).repeat(30)
    pixels = levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    data = ArraySet(pixels, (levels > 127).long(), classes=("dark", "bright"))
    usual = ScaleUp().fit(Bright(), data, run=Run()).usual
    assert 0.4 < usual[0, 0] < 0.9 and usual[0, 1] > LEAST_SPREAD
    assert usual[1].tolist() == pytest.approx([1.0, LEAST_SPREAD])


def test_a_class_that_no_trusted_input_is_given_is_held_against_all() -> None:
    pixels = torch.tensor([10, 30]).repeat(40).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    data = ArraySet(pixels, torch.arange(80) % 2, classes=("dark", "bright"))
    usual = ScaleUp().fit(Bright(), data, run=Run()).usual
    assert torch.equal(usual[0], usual[1]) and bool(usual.isfinite().all())


def test_each_input_scores_as_it_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.2
    alone = torch.cat([guard().score(Even(), one[None]) for one in x])
    assert alone.std() > 0.001
    for most in (8, 25, 128):
        monkeypatch.setattr(shared, "IMAGES_AT_ONCE", most)
        assert torch.allclose(guard().score(Even(), x), alone, atol=1e-6)
    assert guard().score(Even(), x[:0]).shape == (0,)
