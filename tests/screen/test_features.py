"""Features of a set: one pass, whoever asks, and what float16 cannot hold is kept as float32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ostiary.core.cache import NOWHERE, ArrayCache
from ostiary.core.errors import OutOfTime
from ostiary.core.run import Run
from ostiary.data import digits
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.screen.features import compute_features, features_of

PART = digits().subset(range(300))


def fresh(scale: float = 1.0) -> TorchClassifier:
    module = build("small-cnn", 10, in_channels=3, width=4, seed=0)
    with torch.no_grad():
        module.get_submodule(TorchClassifier(module, 10, PART.shape).head_name).weight.mul_(scale)
    return TorchClassifier(module, PART.classes, PART.shape)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    honest = TorchClassifier.features_and_logits

    def counted(self: TorchClassifier, x: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(x))
        return honest(self, x)

    monkeypatch.setattr(TorchClassifier, "features_and_logits", counted)
    return seen


def test_a_model_and_a_set_are_passed_once_whoever_asks(passes: list[int]) -> None:
    first = features_of(fresh(), PART, Run())
    again = features_of(fresh(), PART, Run())  # another object of equal weights: from the disk
    assert sum(passes) == len(PART)
    assert np.array_equal(first.features, again.features) and np.array_equal(first.logits, again.logits)
    features_of(fresh(2.0), PART, Run())
    features_of(fresh(), PART.subset(range(200)), Run())
    assert sum(passes) == 2 * len(PART) + 200, "other weights or another set are computed"


def test_they_are_the_models_own_up_to_rounding() -> None:
    model = fresh()
    found = features_of(model, PART, Run())
    x = PART.take(range(len(PART)))
    for array, exact in ((found.features, model.features(x)), (found.logits, model.logits(x).detach())):
        assert array.dtype == np.float16
        assert np.allclose(array, exact.numpy(), rtol=2e-3, atol=2e-3)
    assert found.thumbnails.shape == (300, 3 * 8 * 8)


def test_values_too_large_for_half_precision_are_kept_in_single(tmp_path: Path) -> None:
    model = fresh(1e6)
    found = compute_features(model, PART, Run(), ArrayCache(tmp_path, 10**8), ("a", "b", "c"))
    exact = model.logits(PART.take(range(len(PART)))).detach().numpy()
    assert np.abs(exact).max() > np.finfo(np.float16).max, "the test would show nothing"
    assert found.logits.dtype == np.float32 and np.allclose(found.logits, exact, rtol=1e-4, atol=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_pass_that_runs_out_of_time_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime):
        compute_features(fresh(), PART, Run(deadline=0.0), ArrayCache(tmp_path, 10**8), ("a", "b", "c"))
    assert not list(tmp_path.iterdir())
    assert len(compute_features(fresh(), PART, Run(), NOWHERE).features) == len(PART)
