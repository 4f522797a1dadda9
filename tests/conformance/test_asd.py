"""Adaptively splitting (Gao et al. 2023): poison stays out of the pool of believed labels, and so does the backdoor."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from ostiary.bench.demo import RECIPE
from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.data import ArraySet
from ostiary.harden.asd import AdaptiveSplitting
from ostiary.harden.mixmatch import MixMatch
from ostiary.models.classifier import TorchClassifier
from ostiary.training.flow import new_model

SHORT = dataclasses.replace(RECIPE, epochs=8, batch=64, lr=0.1, precision="fp32")


def hardened(lab: Any, monkeypatch: pytest.MonkeyPatch, split: Any = None) -> tuple[TorchClassifier, list[np.ndarray]]:
    """The model, and the pool of every epoch."""
    pools: list[np.ndarray] = []
    own = split or AdaptiveSplitting.split

    def spy(self: AdaptiveSplitting, *args: Any) -> np.ndarray:
        pools.append(own(self, *args))
        return pools[-1]

    monkeypatch.setattr(AdaptiveSplitting, "split", spy)
    fresh = new_model("small-cnn", lab.poisoned.data, width=None, seed=0)
    return AdaptiveSplitting().harden(lab.poisoned.data, fresh, lab.trusted, SHORT, run=Run()).model, pools


def closes(lab: Any, model: TorchClassifier) -> bool:
    return bool(lab.asr(model) <= 0.05 and lab.accuracy(model) >= lab.accuracy(lab.twin) - 0.05)


def test_poison_stays_out_of_the_pool_and_the_backdoor_out_of_the_model(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pools = hardened(lab, monkeypatch)
    n = len(lab.poisoned.data)
    assert [int(pool.sum()) for pool in pools] == [0, 32, 63, 92, *[round(0.5 * n)] * 4]
    planted = [float(lab.is_poisoned[pool].mean()) for pool in pools[1:]]
    assert max(planted) <= 0.01 and lab.is_poisoned.mean() > 0.04
    assert closes(lab, model)


def test_mutant_that_believes_half_of_the_labels_at_random_learns_the_backdoor(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_random(self: Any, model: Any, data: Any, done: float, *rest: Any) -> np.ndarray:
        return np.random.default_rng(round(100 * done)).random(len(data)) < 0.5

    assert not closes(lab, hardened(lab, monkeypatch, at_random)[0])


def test_the_pool_is_chosen_by_the_losses_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(40) % 2
    data = ArraySet(torch.zeros(40, 1, 8, 8, dtype=torch.uint8), labels)
    losses = torch.arange(40.0)
    model = TorchClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), 2, (1, 8, 8))
    monkeypatch.setattr("ostiary.harden.asd.sample_losses", lambda *_, **__: losses)
    monkeypatch.setattr(AdaptiveSplitting, "_learned_all", lambda *_: 2 * losses)
    method = AdaptiveSplitting(share=0.25, first=0.2)

    def pool(done: float) -> list[int]:
        return np.flatnonzero(method.split(model, data, done, SHORT, Run())).tolist()

    assert pool(0.0) == [], "the trusted samples alone"
    assert pool(0.25) == [0, 1, 2, 3], "a tenth of each class"
    assert pool(0.5) == list(range(10)) and pool(0.7) == pool(0.5), "the quarter of lowest loss"
    assert pool(0.75) == list(range(30, 40)), "the quarter whose loss falls least: by -39 to -30"


def test_guesses_and_the_loss_are_those_of_the_formulas() -> None:
    method = MixMatch(alpha=1e6)  # a Beta of 1e6 is all but one half
    views = [torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])]
    mean = (views[0].softmax(1) + views[1].softmax(1)) / 2
    assert torch.allclose(method.guess(views), mean**2 / (mean**2).sum())
    layer = nn.Linear(4, 3)
    caught: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    model = TorchClassifier(nn.Sequential(nn.Flatten(), layer), 3, (1, 2, 2))
    caught.clear()
    x, y, seen = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]), [torch.rand(5, 1, 2, 2) for _ in range(2)]
    loss = method.loss(
        model, (x, y), seen, ramp=0.5, rng=torch.Generator().manual_seed(1), weights=np.random.default_rng(0)
    )
    with torch.no_grad():
        guess = method.guess([model.logits(view) for view in seen])
        other = torch.randperm(15, generator=torch.Generator().manual_seed(1))
        every, wanted = torch.cat([x, *seen]), torch.cat([one_hot(y, 3).float(), guess, guess])
        mixed, to = (every + every[other]) / 2, (wanted + wanted[other]) / 2
        logits = model.logits(mixed)
        first = -(to[:5] * log_softmax(logits[:5], 1)).sum(1).mean()
        second = ((logits[5:].softmax(1) - to[5:]) ** 2).mean()
    assert torch.allclose(caught[2], mixed.flatten(1), atol=1e-2), "the views one by one, then the mixture"
    assert float(loss.detach()) == pytest.approx(float(first + 0.5 * 15 * second), abs=1e-2)
    loss.backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()


def test_without_trusted_samples_it_says_what_to_give(lab: Any) -> None:
    with pytest.raises(NotMet, match="trusted samples"):
        AdaptiveSplitting().harden(lab.part, lab.twin, None, SHORT, run=Run())
