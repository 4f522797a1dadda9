"""IBD-PSC: Hou et al. 2024, sec. 4: amplified, a poisoned model stays with its target on triggered inputs."""

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from ostiary.bench.demo import RECIPE
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.guard.fitted import MANY_REJECTED
from ostiary.guard.ibd_psc import FittedIbdPsc, IbdPsc, amplified, norms_of
from ostiary.models.classifier import TorchClassifier
from ostiary.training import train
from ostiary.training.flow import new_model

TARGET = 0


@pytest.fixture(scope="module")
def model(lab: Any) -> TorchClassifier:
    """A network of eight normalisation layers; the lab's own has four."""
    made = new_model("vgg11-bn", lab.poisoned.data, width=8, seed=0)
    return train(made, lab.poisoned.data, dataclasses.replace(RECIPE, epochs=12, precision="fp32"), run=Run()).model


@pytest.fixture(scope="module")
def fitted(lab: Any, model: TorchClassifier) -> FittedIbdPsc:
    return IbdPsc().fit(model, lab.trusted, run=Run())


def scores(lab: Any, guard: FittedIbdPsc, model: TorchClassifier) -> tuple[Tensor, Tensor, Tensor]:
    """Of other classes' inputs, of the target's own, and of triggered ones."""
    plain, own = guard.score(model, lab.test.take(range(len(lab.test)))), lab.test.labels == TARGET
    return plain[~own], plain[own], guard.score(model, lab.triggered())


def area(low: Tensor, high: Tensor) -> float:
    return float(roc_auc_score([0] * len(low) + [1] * len(high), torch.cat([low, high])))


def test_triggered_inputs_keep_their_prediction_and_others_of_no_target_lose_it(
    lab: Any, model: TorchClassifier, fitted: FittedIbdPsc
) -> None:
    others, own, triggered = scores(lab, fitted, model)
    assert area(others, triggered) >= 0.6
    assert float(fitted.flagged(triggered).float().mean()) >= 0.95
    assert float(fitted.flagged(others).float().mean()) <= 0.8
    assert float(fitted.flagged(own).float().mean()) >= 0.9, "the blind spot that the card names"


def test_amplifying_is_scale_and_shift_times_the_factor(lab: Any) -> None:
    x = lab.test.take(range(20))
    copy = lab.model.clone()
    for norm in norms_of(copy)[-2:]:
        with torch.no_grad():
            norm.weight *= 1.5  # type: ignore[operator]
            norm.bias *= 1.5  # type: ignore[operator]
    with amplified(norms_of(lab.model)[-2:], 1.5):
        ours = lab.model.predict(x)
    assert torch.allclose(ours, copy.predict(x), atol=1e-5)
    assert not any(norm._forward_hooks for norm in norms_of(lab.model)), "a hook was left behind"


def test_layers_are_chosen_by_the_error_on_trusted_inputs(lab: Any) -> None:
    early, late = (IbdPsc(error=error).fit(lab.model, lab.trusted, run=Run()).layers for error in (0.01, 0.99))
    assert early[0] < late[0] == len(norms_of(lab.model))


def test_a_guard_that_flags_many_honest_inputs_is_cautioned_against(lab: Any) -> None:
    run = Run()
    fitted = IbdPsc(limit=0.01).fit(lab.model, lab.trusted, run=run)
    assert fitted.false_rejection is not None and (fitted.false_rejection.low or 0.0) > MANY_REJECTED
    assert [caution.code for caution in run.cautions] == ["OS916"]


def test_a_model_without_normalisation_is_refused(lab: Any) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))
    plain(torch.zeros(1, 3, 32, 32))
    with pytest.raises(NotMet, match="needs batch normalisation"):
        IbdPsc().fit(TorchClassifier(plain, lab.test.classes, (3, 32, 32)), lab.trusted, run=Run())


def test_mutant_that_amplifies_nothing_fails(lab: Any, model: TorchClassifier, fitted: FittedIbdPsc) -> None:
    mutant = dataclasses.replace(fitted, factor=torch.tensor(1.0))
    assert float(mutant.flagged(scores(lab, mutant, model)[0]).float().mean()) > 0.8
