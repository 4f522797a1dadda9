"""SCAn: Tang et al. 2021, sec. 4 and 5: J* above exp(2) for the target alone, of source-specific triggers too."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ostiary.attacks.badnets import BadNets
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8
from ostiary.screen.scan import Scan
from ostiary.screen.summary import suspects_of

# The unseen test part serves as trusted samples, 45 of a class: the lab's own are 13, too few for 128 features.
LIMIT = float(np.exp(2))


def accused(found: SampleScores) -> list[int]:
    return [row.label for row in found.per_class if row.measures.get("j_star", 0.0) >= LIMIT]


@pytest.fixture(scope="module")
def found(lab: Any) -> SampleScores:
    return Scan().screen(lab.poisoned.data, lab.model, lab.test, run=Run())


def test_the_target_alone_stands_out_and_its_odd_group_is_the_poison(lab: Any, found: SampleScores) -> None:
    assert accused(found) == [0]
    flagged = suspects_of(found, lab.poisoned.data, Scan.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).sum() <= 0.05 * lab.is_poisoned.sum()
    scores = found.scores.numpy()[lab.in_target]
    assert roc_auc_score(lab.is_poisoned[lab.in_target], scores) >= 0.99


def test_no_class_of_the_unpoisoned_set_stands_out(lab: Any) -> None:
    found = Scan().screen(lab.part, lab.twin, lab.test, run=Run())
    assert accused(found) == []
    assert not suspects_of(found, lab.part, Scan.card).any()


def test_a_source_specific_trigger_is_found(lab: Any, train_on: Any) -> None:
    """The attack it was made for: covers keep the trigger from acting on other classes.

    Among ten classes of digits the noughts part, too, so that the statistic of the target, which is relative to the
    others, lies now above and now below the published limit: it must lead, and its group must be the poison.
    """
    attack = BadNets(patch="yellow-square", target=3, source=5, mapping="source-specific", rate=0.03, cover=0.06)
    made = attack.poison(lab.part, run=Run(seed=0))
    found = Scan().screen(made.data, train_on(made.data), lab.test, run=Run())
    assert accused(found) in ([3], [])
    assert max(found.per_class, key=lambda row: row.measures["j_star"]).label == 3
    group = found.suspected & (made.data.labels == 3).numpy()
    poisoned = np.isin(made.data.ids, list(made.truth.poisoned))
    assert (group & poisoned).sum() >= 0.9 * max(poisoned.sum(), group.sum())


def test_mutant_with_groups_at_random_fails(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ostiary.screen import two_groups

    def at_random(line: np.ndarray) -> tuple[np.ndarray, float]:
        return np.random.default_rng(len(line)).random(len(line)) < 0.3, 0.0

    monkeypatch.setattr(two_groups, "part_line", at_random)
    assert accused(Scan().screen(lab.poisoned.data, lab.model, lab.test, run=Run())) == []


@pytest.mark.parametrize("few", [False, True])
def test_without_trusted_samples_enough_the_suspect_data_are_their_own_ruler(lab: Any, few: bool) -> None:
    """`few`: 135 trusted samples for 128 features say where classes lie, and no more."""
    trusted = lab.trusted if few else None
    found = Scan().screen(lab.poisoned.data, lab.model, trusted, run=Run())
    assert accused(found) == [0]
    flagged = suspects_of(found, lab.poisoned.data, Scan.card)
    assert (flagged & lab.is_poisoned).sum() >= 0.95 * lab.is_poisoned.sum()
    assert (flagged & ~lab.is_poisoned).sum() <= 0.05 * lab.is_poisoned.sum()
    assert accused(Scan().screen(lab.part, lab.twin, trusted, run=Run())) == []


def test_alone_the_variation_is_that_within_groups(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without parting the classes first, poison passes for variation: J* of the target is far lower."""
    ours = Scan().screen(lab.poisoned.data, lab.model, None, run=Run())
    monkeypatch.setattr("ostiary.screen.two_groups.SETTLE", 1)
    naive = Scan().screen(lab.poisoned.data, lab.model, None, run=Run())
    assert ours.per_class[0].measures["j_star"] > 3 * naive.per_class[0].measures["j_star"]


def test_three_classes_have_no_middle(lab: Any) -> None:
    few = ArraySet(load_uint8(lab.part.subset(range(3))), lab.part.labels[:3] * 0, ("a", "b", "c"))
    with pytest.raises(NotMet, match="needs 4 classes"):
        Scan().screen(few, lab.twin, few, run=Run())
