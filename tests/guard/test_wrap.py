"""A model behind a guard flags or refuses what the guard warns about, and answers the rest as ever."""

from pathlib import Path

import pytest
import torch

from ostiary.core.errors import FormatError, ModelError
from ostiary.core.run import Run
from ostiary.data import digits, trusted_subset
from ostiary.guard import wrap
from ostiary.guard.mahalanobis import Mahalanobis
from ostiary.guard.strip import FittedStrip, Strip
from ostiary.guard.ted import Ted
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build


@pytest.fixture(scope="module")
def model() -> TorchClassifier:
    return TorchClassifier(build("small-cnn", 10, width=4, seed=0), 10, (3, 32, 32))


@pytest.fixture(scope="module")
def guard(model: TorchClassifier) -> FittedStrip:
    return Strip(overlays=8, false_rejection=0.3).fit(model, trusted_subset(digits(), 120, seed=0), run=Run())


def test_answers_are_the_models_and_flags_are_the_guards(model: TorchClassifier, guard: FittedStrip) -> None:
    x = digits("test").take(range(60))
    found = wrap(model, guard)(x)
    assert torch.equal(found.probabilities, model.predict(x))
    assert torch.equal(found.flagged, guard.score(model, x) > guard.threshold)
    assert 0 < int(found.flagged.sum()) < 60


def test_refused_answers_are_no_answers(model: TorchClassifier, guard: FittedStrip, tmp_path: Path) -> None:
    x = digits("test").take(range(60))
    guard.save(tmp_path / "g.safetensors")
    found = wrap(model, tmp_path / "g.safetensors", refuse=True)(x)
    assert found.probabilities[found.flagged].isnan().all()
    assert torch.equal(found.probabilities[~found.flagged], model.predict(x)[~found.flagged])


def test_what_cannot_be_scored_is_flagged(model: TorchClassifier, guard: FittedStrip) -> None:
    class Blind(FittedStrip):
        def score(self, model: TorchClassifier, x: torch.Tensor, /) -> torch.Tensor:
            return torch.full((len(x),), float("nan"))

    blind = Blind(guard.overlays, guard.threshold, guard.model_digest)
    assert wrap(model, blind)(digits("test").take(range(4))).flagged.all()


def test_another_models_guard_and_no_guard_are_refused(guard: FittedStrip, tmp_path: Path) -> None:
    other = TorchClassifier(build("small-cnn", 10, width=4, seed=1), 10, (3, 32, 32))
    with pytest.raises(ModelError, match="was fitted to model"):
        wrap(other, guard)
    with pytest.raises(FormatError, match="no such file"):
        wrap(other, tmp_path / "none")


@pytest.mark.parametrize("guard_class", [Mahalanobis, Ted])
def test_features_and_answers_come_from_one_pass(model: TorchClassifier, guard_class: type[Mahalanobis | Ted]) -> None:
    data = trusted_subset(digits(), 400, seed=0)
    own = data.subset((model.predict(data.take(range(400))).argmax(1) == data.labels).nonzero().squeeze(1))
    answer = wrap(model, guard_class().fit(model, own if guard_class is Ted else data, run=Run()))
    passes = []
    hook = model.module.register_forward_hook(lambda *_: passes.append(1))
    try:
        answer(data.take(range(20)))
    finally:
        hook.remove()
    assert len(passes) == 1
