"""Label conflicts: poison beside the pictures it was made from. No paper; what the method promises itself."""

from typing import Any

import numpy as np
import pytest
import torch

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.injection import Injection
from ostiary.core.decide import exceeds
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet, load_uint8
from ostiary.screen import label_conflicts as module
from ostiary.screen.label_conflicts import LabelConflicts, _agreement, _contrasts, _most_alike, unexplained
from ostiary.screen.summary import suspects_of

ADDED = 30


def beside(lab: Any, attack: Any) -> tuple[ImageSet, np.ndarray]:
    """The unpoisoned set and 30 poisoned copies of its samples, and which those are."""
    made = attack(target=4, rate=ADDED / len(lab.part)).poison(lab.part, run=Run(seed=0))
    rows = np.flatnonzero(np.isin(made.data.ids, list(made.truth.poisoned)))
    pixels = torch.cat([load_uint8(lab.part), made.data.pixels(rows.tolist())])
    labels = torch.cat([lab.part.labels, made.data.labels[rows]])
    data = ArraySet(pixels, labels, lab.part.classes, [f"{row:05d}" for row in range(len(labels))])
    return data, np.arange(len(labels)) >= len(lab.part)


def accused(found: SampleScores) -> list[int]:
    return [row.label for row in found.per_class if exceeds(row, LabelConflicts.card.limits)]


@pytest.mark.parametrize("attack", [BadNets, Blended])
def test_copies_under_another_label_are_found_and_their_originals_are_not_put_forward(lab: Any, attack: Any) -> None:
    data, planted = beside(lab, attack)
    found = LabelConflicts().screen(data, None, None, run=Run())
    assert accused(found) == [4]
    assert np.array_equal(suspects_of(found, data, LabelConflicts.card), planted)
    assert found.suspected.sum() == 2 * ADDED, "each original is in conflict with its copy"
    assert found.scores[found.suspected].min() > 1 > found.scores[~found.suspected].max()


def test_the_unpoisoned_set_and_poison_without_its_originals_have_no_conflict(lab: Any) -> None:
    for data in (lab.part, lab.poisoned.data):
        found = LabelConflicts().screen(data, None, None, run=Run())
        assert not found.suspected.any() and accused(found) == []


def test_injected_copies_are_all_in_conflict(lab: Any) -> None:
    made = Injection(rate=0.1).poison(lab.part, run=Run(seed=0))
    found = LabelConflicts().screen(made.data, None, None, run=Run())
    copies = np.isin(made.data.ids, list(made.truth.poisoned))
    assert found.suspected[copies].all() and found.suspected[~copies].sum() <= copies.sum()


def test_mutant_that_looks_at_contrasts_alone_misses_patches(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_agreement", lambda one, other: torch.zeros(len(one)))
    data, planted = beside(lab, BadNets)
    assert LabelConflicts().screen(data, None, None, run=Run()).suspected[planted].mean() < 0.5


def within_labels(directions: Any, labels: Any, run: Run) -> Any:
    best = (directions @ directions.T).fill_diagonal_(-2.0).max(1)
    return best.values, best.indices


def test_pictures_that_are_in_the_set_twice_are_no_conflict_but_for_a_mutant_that_ignores_labels(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*range(len(lab.part)), *range(ADDED)]
    ids = [f"{row:05d}" for row in range(len(rows))]
    data = ArraySet(load_uint8(lab.part)[rows], lab.part.labels[rows], lab.part.classes, ids)
    assert not LabelConflicts().screen(data, None, None, run=Run()).suspected.any()
    monkeypatch.setattr(module, "_most_alike", within_labels)
    assert LabelConflicts().screen(data, None, None, run=Run()).suspected.sum() == 2 * ADDED


def test_the_most_alike_are_found_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    directions, labels = _contrasts(torch.rand(70, 3, 8, 8, generator=rng)), torch.arange(70) % 3
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 1)
    likeness, twins = _most_alike(directions, labels, Run())
    exact = (directions @ directions.T).masked_fill(labels[:, None] == labels, -2).max(1)
    assert torch.equal(twins, exact.indices) and torch.allclose(likeness, exact.values)
    assert directions.norm(dim=1) == pytest.approx(1.0) and (labels[twins] != labels).all()


def test_cells_agree_within_a_tenth_of_the_contrast() -> None:
    one = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, 0, :2, :4] += 0.2 * float(one.std())
    other[:, 1, 7] += 0.05 * float(one.std())
    assert float(_agreement(one, other)) == 1 - 8 / 64
    flat = torch.full((1, 3, 8, 8), 0.5)
    assert float(_agreement(flat, flat + 1 / 255)) == 0 and float(_agreement(flat, flat.clone())) == 1


def test_the_class_with_the_most_conflicts_explains_those_of_its_twins() -> None:
    pairs = np.zeros((4, 4), int)
    pairs[1, [0, 2, 3]] = (9, 8, 7)
    pairs[[0, 2, 3], 1] = (9, 8, 7)
    pairs[0, 2] = pairs[2, 0] = 2
    assert unexplained(pairs).tolist() == [2, 24, 2, 0]
    assert unexplained(np.zeros((3, 3), int)).tolist() == [0, 0, 0]
    one_source = np.array([[0, 6, 0], [6, 0, 0], [0, 0, 0]])
    assert unexplained(one_source).tolist() == [6, 6, 0], "nothing tells which of the two explains the other"
