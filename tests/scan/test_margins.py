"""MM-BD step by step: margins, the climb, the null distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build
from ostiary.scan.mm_bd import MMBD, margin, p_values


def small() -> TorchClassifier:
    return TorchClassifier(build("small-cnn", 5, width=4, seed=1), 5, (3, 8, 8))


def test_a_margin_is_the_logit_minus_the_largest_other() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [3.0, -1.0, 2.0]])
    assert margin(logits, torch.tensor([1, 1])).tolist() == [1.5, -4.0]


def test_the_climb_ends_higher_than_it_began_and_inside_the_images_range() -> None:
    model, targets = fused_inference(small()), torch.arange(5)
    start = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    short, long = (MMBD(starts=6, steps=steps, lr=1.0)._climb(model, start, targets, Run()) for steps in (1, 40))
    assert (long > short).all()


def test_classes_are_climbed_apart() -> None:
    """In one group or each alone: the same margins."""
    model, method = fused_inference(small()), MMBD(starts=4, steps=10, lr=1.0)
    start = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = method._climb(model, start, torch.arange(5), Run())
    alone = torch.cat([method._climb(model, start, torch.tensor([label]), Run()) for label in range(5)])
    assert torch.allclose(together, alone, rtol=1e-4)


def test_a_p_value_is_that_of_the_largest_of_k_draws_from_a_gamma_of_the_others() -> None:
    margins = np.array([5.0, 6.0, 5.5, 7.0, 6.5, 30.0])
    found = p_values(margins)
    shape, _, scale = stats.gamma.fit(margins[:5], floc=0)
    assert found[5] == pytest.approx(1 - stats.gamma.cdf(30.0, shape, scale=scale) ** 6, abs=1e-9)
    assert found[5] < 0.05 < found[:5].min()


def test_under_its_own_null_the_published_test_is_too_bold() -> None:
    """The largest margin is left out of the fit that judges it: of 200 models without a backdoor 53 have p < 0.05."""
    rng = np.random.default_rng(0)
    low = [np.nanmin(p_values(rng.gamma(9.0, 2.0, 10))) < 0.05 for _ in range(200)]
    assert 0.15 < np.mean(low) < 0.35


@pytest.mark.parametrize("margins", [[1.0, 2.0, 3.0], [np.nan] * 6])
def test_too_few_margins_give_no_p_value(margins: list[float]) -> None:
    assert np.isnan(p_values(np.array(margins))).all()


def test_margins_below_zero_and_equal_ones_are_borne() -> None:
    assert np.isfinite(p_values(np.array([-3.0, -2.0, -2.5, -1.0, 9.0]))).all()
    assert p_values(np.array([2.0, 2.0, 2.0, 2.0, 8.0]))[4] < 0.05
