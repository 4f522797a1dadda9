"""Without a name the guard is fitted that does best of those that can be."""

from pathlib import Path

import pytest

from ostiary.api import fit_guard
from ostiary.data import digits, trusted_subset
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build


@pytest.mark.parametrize(("each", "method"), [(12, "guard.mahalanobis"), (6, "guard.strip")])
def test_few_trusted_samples_leave_another_guard(
    each: int, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", str(tmp_path / "runs"))
    model = TorchClassifier(build("small-cnn", 10, width=4, seed=0), 10, (3, 32, 32))
    trusted = trusted_subset(digits(), 10 * each, seed=0)
    record = fit_guard(model, trusted, tmp_path / "guard.safetensors")
    (result,) = record.results
    assert (result.method, result.status) == (method, "ok")
