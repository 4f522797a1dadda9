"""Frequency: Zeng et al. 2021, sec. 4, a detector on cosine transforms that learns from generic disturbances."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.core.decide import exceeds
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import ImageSet, trusted_subset
from ostiary.screen import frequency as module
from ostiary.screen.disturb import WAYS, disturbed
from ostiary.screen.frequency import FLOOR, Frequency, spectra
from ostiary.screen.summary import suspects_of


def screened(data: ImageSet, trusted: ImageSet | None = None) -> SampleScores:
    return Frequency(images=1500).screen(data, None, trusted, run=Run())


def accused(found: SampleScores) -> list[int]:
    return [row.label for row in found.per_class if exceeds(row, Frequency.card.limits)]


def of(made: Any) -> np.ndarray:
    return np.isin(made.data.ids, list(made.truth.poisoned))


def test_poison_leads_the_ranking_and_its_class_alone_is_accused(lab: Any) -> None:
    found = screened(lab.poisoned.data)
    assert roc_auc_score(lab.is_poisoned, found.scores.numpy()) >= 0.99 and accused(found) == [0]
    flagged = suspects_of(found, lab.poisoned.data, Frequency.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).mean() <= 0.01


@pytest.mark.parametrize("beside", [False, True])
def test_the_unpoisoned_set_has_no_suspects(lab: Any, beside: bool) -> None:
    found = screened(lab.part, lab.trusted if beside else None)
    assert accused(found) == [] and not suspects_of(found, lab.part, Frequency.card).any()


def test_one_sample_in_a_hundred_leads_the_ranking_whatever_the_trigger(lab: Any) -> None:
    for attack in (BadNets(target=5, rate=0.01), Blended(target=5, rate=0.01)):
        made = attack.poison(lab.part, run=Run(seed=0))
        assert roc_auc_score(of(made), screened(made.data).scores.numpy()) >= 0.95


def test_an_all_to_all_attack_shows_beside_trusted_samples_alone(lab: Any) -> None:
    """Every class carries it: without trusted samples the detectors learn it as honest."""
    made = BadNets(patch="yellow-square", mapping="all-to-all", rate=0.1).poison(lab.part, run=Run(seed=0))
    found = screened(made.data, lab.trusted)
    assert roc_auc_score(of(made), found.scores.numpy()) >= 0.97 and len(accused(found)) >= 8
    assert accused(screened(made.data)) == []


def test_mutant_whose_detectors_saw_the_classes_they_judge_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = module._judged
    monkeypatch.setattr(module, "_judged", lambda detectors, data, run: honest(detectors[::-1], data, run))
    found = screened(lab.poisoned.data)
    assert accused(found) == [] and found.suspected[lab.is_poisoned].mean() < 0.5


def test_mutant_whose_disturbances_do_nothing_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "disturbed", lambda x, rng: x)
    assert accused(screened(lab.poisoned.data)) == []


def test_spectra_are_those_of_the_cosine_transform() -> None:
    flat = torch.full((1, 3, 32, 32), 0.5)
    sizes = spectra(flat).exp() - FLOOR
    assert float(sizes[0, 0, 0, 0]) == pytest.approx(0.5 * 32, rel=1e-4)
    assert float(sizes.flatten(2)[:, :, 1:].abs().max()) < 1e-5
    wave = torch.cos(torch.pi * (torch.arange(32) + 0.5) * 5 / 32).expand(1, 1, 32, 32)
    assert int(spectra(wave).flatten().argmax()) == 5
    large = spectra(torch.cos(torch.pi * (torch.arange(64) + 0.5) * 11 / 64).expand(1, 1, 64, 64))
    assert large.shape == (1, 1, 32, 32) and int(large.flatten().argmax()) == 5, "the strongest of two by two"
    assert spectra(torch.rand(2, 1, 28, 40)).shape == (2, 1, 28, 32)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 12)])
def test_disturbances_change_what_they_say_and_nothing_else(shape: tuple[int, int, int]) -> None:
    x = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    coloured, speckled, noisy, shaded, overlaid = (way(x, torch.Generator().manual_seed(1)) for way in WAYS)
    quarter = max(2, shape[1] // 4) * max(2, shape[2] // 4) / (shape[1] * shape[2])
    for block in (coloured, speckled):
        share = (block != x).any(1).float().mean((1, 2))
        assert float(share.min()) > 0 and float(share.max()) <= quarter + 1e-6
    assert 0.015 < float((noisy - x).std()) < 0.1 and (noisy != x).float().mean() > 0.99
    dark = shaded != x
    assert torch.allclose(shaded[dark], x[dark] / 2) and 0.1 < dark.float().mean() < 0.9
    assert float((overlaid - x).abs().max()) <= 0.3
    one, again = (disturbed(x, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, again) and torch.equal(x, kept)
    assert torch.equal((one * 255).round() / 255, one) and float(one.min()) >= 0 and float(one.max()) <= 1


def test_few_trusted_samples_are_not_used(lab: Any) -> None:
    few = trusted_subset(lab.trusted, 60, seed=0)
    assert torch.equal(screened(lab.part, few).scores, screened(lab.part).scores)
