"""The outlier step against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.scan.outlier import anomaly_index, grubbs, size_ratio

# Median 60; deviations 52, 10, 2, 0, 4, 5, 20; their median 5; scaled 7.413.
BY_HAND = np.array([8.0, 50.0, 58.0, 60.0, 64.0, 65.0, 80.0])


def test_hand_computed() -> None:
    index = anomaly_index(BY_HAND)
    assert index == pytest.approx(np.array([52, 10, 2, 0, -4, -5, -20]) / (1.4826 * 5))
    assert np.flatnonzero(index > 2).tolist() == [0]


def test_large_masks_are_no_outliers() -> None:
    """Taking the absolute value would flag the class of the largest mask."""
    assert anomaly_index(BY_HAND)[-1] < -2


def test_classes_without_a_mask_stay_out() -> None:
    with_gaps = np.insert(BY_HAND, [2, 5], np.nan)
    index = anomaly_index(with_gaps)
    assert np.isnan(index[[2, 6]]).all()
    assert index[~np.isnan(index)] == pytest.approx(anomaly_index(BY_HAND))


def test_fewer_than_three_masks_have_no_index() -> None:
    assert np.isnan(anomaly_index(np.array([1.0, 50.0, np.nan]))).all()


def test_equal_sizes_and_no_deviation() -> None:
    assert anomaly_index(np.full(5, 3.0)).tolist() == [0.0] * 5
    assert anomaly_index(np.array([1.0, 3.0, 3.0, 3.0])).tolist() == [np.inf, 0.0, 0.0, 0.0]


NONE = np.full(3, np.nan)


def test_ratio_by_hand() -> None:
    assert size_ratio(np.array([6.0, 60.0, 120.0]), NONE).tolist() == [10.0, 1.0, 0.5]
    assert size_ratio(np.array([0.0, 5.0, 5.0]), NONE)[0] == pytest.approx(5000), "an empty mask divides by no zero"
    assert np.isnan(size_ratio(NONE, NONE)).all()


def test_a_class_without_a_mask_counts_with_the_last_one_that_failed() -> None:
    """One class gives way to 8 px and nothing else works for the others: the clearest case of all, and not ratio 1."""
    sizes = np.array([8.0, np.nan, np.nan, np.nan])
    assert size_ratio(sizes, np.array([3.0, 400.0, 480.0, 520.0]))[0] == pytest.approx(440 / 8)
    assert size_ratio(sizes, np.array([3.0, np.nan, np.nan, 80.0]))[0] == pytest.approx(44 / 8), "cut ones stay out"
    assert np.isnan(size_ratio(sizes, np.full(4, 400.0))[1:]).all()


sizes = st.lists(st.floats(0.5, 500), min_size=3, max_size=43)


@given(sizes, st.floats(0.1, 10))
def test_the_unit_of_the_sizes_does_not_matter(values: list[float], factor: float) -> None:
    one, other = anomaly_index(np.array(values)), anomaly_index(np.array(values) * factor)
    finite = np.isfinite(one) & np.isfinite(other) & (np.abs(one) < 1e6)
    assert one[finite] == pytest.approx(other[finite], rel=1e-3, abs=1e-3)


@given(sizes)
def test_smaller_is_never_less_suspicious(values: list[float]) -> None:
    array = np.array(values)
    order = np.argsort(array, kind="stable")
    index = anomaly_index(array)[order]
    assert (index[1:] <= index[:-1]).all()


def test_grubbs_by_hand_and_against_its_tables() -> None:
    """Against the others alone: 1, 2, 3 have mean 2 and deviation 1, so 6 lies at t = 4 / sqrt(1 + 1/3), 2 freedoms."""
    t = 4 / np.sqrt(4 / 3)
    tail = 0.5 - t / (2 * np.sqrt(2 + t * t))
    assert grubbs(np.array([1.0, 2.0, 3.0, 6.0]))[3] == pytest.approx(4 * tail)
    critical = 2.176  # one-sided at 5 % for ten values
    values = np.array([-1.0, 1.0] * 4 + [0.0])
    low, high = 1.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        ten = np.append(values, middle)
        far = (middle - ten.mean()) / ten.std(ddof=1)
        low, high = (middle, high) if far < critical else (low, middle)
    assert grubbs(np.append(values, low))[9] == pytest.approx(0.05, abs=0.001)


def test_grubbs_accuses_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = sum(grubbs(rng.normal(size=12)).min() <= 0.05 for _ in range(2000))
    assert 70 <= hits <= 130  # 100 expected


def test_grubbs_on_equal_values() -> None:
    assert grubbs(np.ones(5)).tolist() == [1.0] * 5
    assert grubbs(np.array([1.0, 2.0])).tolist() == [1.0, 1.0]
    assert grubbs(np.array([1.0, 1.0, 1.0, 2.0])).tolist() == [1.0, 1.0, 1.0, 0.0]
