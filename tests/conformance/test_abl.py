"""Anti-Backdoor Learning (Li et al. 2021): the backdoor is isolated, learned all the same, and unlearned."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ostiary.bench.demo import RECIPE
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.harden.abl import AntiBackdoorLearning, _beside, _others
from ostiary.models.classifier import TorchClassifier
from ostiary.training.flow import new_model

SHORT = dataclasses.replace(RECIPE, epochs=12, precision="fp32")


def hardened(lab: Any) -> tuple[Hardened, TorchClassifier]:
    """What comes of the poisoned digits, and the network as it was before anything was unlearned."""
    before: list[TorchClassifier] = []
    unlearn = AntiBackdoorLearning._unlearn

    def spy(self: AntiBackdoorLearning, model: TorchClassifier, *rest: Any) -> str:
        before.append(model.clone())
        return unlearn(self, model, *rest)

    fresh = new_model("small-cnn", lab.poisoned.data, width=None, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AntiBackdoorLearning, "_unlearn", spy)
        made = AntiBackdoorLearning().harden(lab.poisoned.data, fresh, None, SHORT, run=Run())
    return made, before[0]


def closes(lab: Any, model: TorchClassifier) -> bool:
    return bool(lab.asr(model) <= 0.05 and lab.accuracy(model) >= lab.accuracy(lab.twin) - 0.02)


def test_what_is_isolated_is_poison_and_unlearning_it_closes_the_backdoor(lab: Any) -> None:
    made, before = hardened(lab)
    assert made.suspected is not None and made.suspected.sum() == round(0.01 * len(lab.poisoned.data))
    assert lab.is_poisoned[made.suspected].mean() >= 0.9
    assert lab.asr(before) >= 0.9 and not closes(lab, before), "the mutant that stops before unlearning"
    assert closes(lab, made.model)
    assert "had lost their label" in made.selected["unlearning"], "when to stop was read off the suspect set"


def test_mutant_that_isolates_the_highest_losses_keeps_the_backdoor(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate = AntiBackdoorLearning.isolate
    monkeypatch.setattr(AntiBackdoorLearning, "isolate", lambda self, losses: isolate(self, -losses))
    assert not closes(lab, hardened(lab)[0].model)


def unlearned(monkeypatch: pytest.MonkeyPatch, lab: Any, watched: ImageSet | None, wanted: Tensor) -> tuple[str, bool]:
    """Unlearn samples of the unpoisoned set; how it ended, and whether the weights are as they were."""
    model = lab.twin.clone()
    rest, bad = (lab.part.subset(rows.nonzero().squeeze(1)) for rows in (~wanted, wanted))
    method = AntiBackdoorLearning(lr=0.01)
    said = method._unlearn(model, rest, bad, watched, SHORT, Run())
    assert not model.module.training
    return said, model.digest == lab.twin.digest


@pytest.mark.parametrize("trusted", [True, False])
def test_unlearning_that_ruins_the_network_is_taken_back(
    lab: Any, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where honest samples were isolated: all sevens here, at a hundred times the rate."""
    wanted = lab.part.labels == 7
    said, same = unlearned(monkeypatch, lab, lab.trusted if trusted else None, wanted)
    where = "the trusted samples" if trusted else "labels that no isolated sample carries"
    assert said == f"0 steps, as more cost accuracy on {where}" and same


def test_the_lowest_losses_are_isolated() -> None:
    losses = torch.tensor([3.0, 0.5, 2.0, 0.1, 4.0, 1.0, 9.0, 8.0, 7.0, 6.0])
    assert np.flatnonzero(AntiBackdoorLearning(isolated=0.3).isolate(losses)).tolist() == [1, 3, 5]
    assert np.flatnonzero(AntiBackdoorLearning(isolated=0.01).isolate(losses)).tolist() == [3]


def test_batches_hold_every_sample_of_the_rest_in_turn_beside_the_isolated(lab: Any) -> None:
    rest, bad = lab.part.subset(range(20)), lab.part.subset(range(20, 25))
    recipe = dataclasses.replace(SHORT, batch=10, padding=0)
    seen = []
    for x, y, isolated in _beside(rest, bad, recipe, 4, Run()):
        assert len(x) == len(y) == 15 and isolated.tolist() == [False] * 10 + [True] * 5
        assert sorted(y[isolated].tolist()) == sorted(bad.labels.tolist())
        seen.append(x[~isolated])
    for half in (seen[:2], seen[2:]):
        given = torch.cat(half).flatten(1)
        assert torch.equal(given.sum(1).sort().values, rest.take(range(20)).flatten(1).sum(1).sort().values)


def test_what_is_watched_carries_other_labels(lab: Any) -> None:
    rest, bad = lab.part, lab.part.subset((lab.part.labels < 2).nonzero().squeeze(1))
    watched = _others(rest, bad)
    assert set(watched.labels.tolist()) == set(range(2, 10)) and len(watched) <= 1000
    assert len(_others(rest, rest)) == 0, "nothing is watched where isolated samples carry every label"
