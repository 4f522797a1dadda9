"""STRIP's score against a hand-computed entropy, and that an input's score is its own."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.guard import fitted
from ostiary.guard.strip import FittedStrip, Strip


class Fake:
    """A predictor of two classes whose probability is a function of the mean brightness."""

    classes = ("0", "1")
    digest = "fake"

    def __init__(self, first: Callable[[Tensor], Tensor] = lambda mean: mean) -> None:
        self.first = first
        self.seen: list[Tensor] = []

    def predict(self, x: Tensor, /) -> Tensor:
        self.seen.append(x)
        p = self.first(x.mean((1, 2, 3))).clamp(0, 1)
        return torch.stack([p, 1 - p], 1)


def flat(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()


def entropy(p: float) -> float:
    return sum(-q * math.log2(q) for q in (p, 1 - p) if q > 0)


def test_the_score_is_minus_the_mean_entropy_in_bits() -> None:
    guard = FittedStrip(flat(0.1, 0.25), 0.0, "fake")
    expected = [
        -(entropy(0.1 + x) + entropy(0.25 + x)) / 2 if x < 0.9 else 0.0  # the sum saturates at 1
        for x in (0.0, 0.25, 0.5, 0.95)
    ]
    assert guard.score(Fake(), flat(0.0, 0.25, 0.5, 0.95)).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_certain_prediction_is_the_highest_score_and_an_even_one_the_lowest() -> None:
    guard = FittedStrip(flat(0.2, 0.7), 0.0, "fake")
    assert guard.score(Fake(torch.ones_like), flat(0.3)).tolist() == pytest.approx([0.0], abs=1e-6)
    assert guard.score(Fake(lambda m: torch.full_like(m, 0.5)), flat(0.3)).tolist() == pytest.approx([-1.0])


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(12)))
def test_permuting_a_batch_permutes_its_scores(order: list[int]) -> None:
    """Fails where blends are made input by input and averaged overlay by overlay."""
    x = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    guard = FittedStrip(flat(0.0, 0.2, 0.4, 0.5, 0.8), 0.0, "fake")
    scores = guard.score(Fake(), x)
    assert scores.std() > 0.01
    assert torch.allclose(guard.score(Fake(), x[order]), scores[order], atol=1e-6)


def test_each_input_scores_as_it_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batch: every sample is judged, not the first batch only."""
    x = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    guard = FittedStrip(flat(0.1, 0.3, 0.6), 0.0, "fake")
    alone = torch.cat([guard.score(Fake(), one[None]) for one in x])
    monkeypatch.setattr(fitted, "IMAGES_AT_ONCE", 6)
    assert torch.allclose(guard.score(Fake(), x), alone, atol=1e-6)
    pixels = (x * 255).round().to(torch.uint8)
    data = ArraySet(pixels, torch.zeros(9, dtype=torch.long), classes=("0", "1"))
    assert len(guard.score_all(Fake(), data, run=Run())) == 9


def test_no_inputs_have_no_scores() -> None:
    assert FittedStrip(flat(0.1), 0.0, "fake").score(Fake(), flat()[:0]).shape == (0,)


def test_overlays_limit_and_check_are_three_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The false rejection rate is measured on samples that neither set the limit nor were laid over."""
    rng = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (90, 3, 4, 4), dtype=torch.uint8, generator=rng)
    data = ArraySet(pixels, torch.arange(90) % 2)
    parts: list[set[str]] = []
    honest = FittedStrip.score_all

    def watch(self: FittedStrip, model: Fake, part: ArraySet, *, run: Run) -> Tensor:
        parts.append(set(part.ids))
        return honest(self, model, part, run=run)

    monkeypatch.setattr(FittedStrip, "score_all", watch)
    guard = Strip(overlays=20).fit(Fake(), data, run=Run())
    limit, check = parts
    rest = [image for row, image in enumerate(data.take(range(90))) if str(row) not in limit | check]
    assert not limit & check and len(limit) + len(check) <= 62
    assert all(any(torch.equal(overlay, image) for image in rest) for overlay in guard.overlays)
    assert guard.false_rejection is not None and guard.false_rejection.n == len(check)


def test_the_limit_rejects_no_more_than_the_wanted_share_of_its_own_samples() -> None:
    pixels = torch.randint(0, 256, (300, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    data = ArraySet(pixels, torch.arange(300) % 2)
    for wanted in (0.01, 0.1, 0.3):
        guard = Strip(overlays=10, false_rejection=wanted).fit(Fake(), data, run=Run())
        rejected = guard.false_rejection
        assert rejected is not None and rejected.low <= wanted
