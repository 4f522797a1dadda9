"""Detection rates by hand; missed poison is missed, not a false positive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.bench.detection import detection_rates

POISONED = np.array([True, True, True, False, False, False, False, False])


@pytest.mark.parametrize(
    ("flagged", "true", "false"),
    [([0, 1, 3], 2, 1), ([], 0, 0), ([0, 1, 2], 3, 0), ([3, 4, 5, 6, 7], 0, 5), (range(8), 3, 5)],
)
def test_by_hand(flagged: list[int], true: int, false: int) -> None:
    suspected = np.isin(np.arange(8), list(flagged))
    tpr, fpr = detection_rates(suspected, POISONED)
    assert (tpr.k, tpr.n, fpr.k, fpr.n) == (true, 3, false, 5)


def test_nothing_flagged_misses_all_poison_and_has_no_false_positive() -> None:
    tpr, fpr = detection_rates(np.zeros(8, bool), POISONED)
    assert (tpr.value, fpr.value) == (0.0, 0.0)


def test_without_poison_there_is_no_true_positive_rate() -> None:
    tpr, fpr = detection_rates(np.ones(4, bool), np.zeros(4, bool))
    assert tpr.value is None and fpr.value == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_every_sample_is_counted_once(pairs: list[tuple[bool, bool]]) -> None:
    suspected, poisoned = (np.array(column) for column in zip(*pairs, strict=True))
    tpr, fpr = detection_rates(suspected, poisoned)
    assert tpr.n + fpr.n == len(pairs)
    assert tpr.k + fpr.k == suspected.sum()
