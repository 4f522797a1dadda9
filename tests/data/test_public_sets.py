"""Public sets open as published; needs a folder of them named by OSTIARY_DATA."""

import os
from pathlib import Path

import pytest

from ostiary.data import open_data, per_class_counts, trusted_subset


@pytest.fixture
def root() -> Path:
    folder = os.environ.get("OSTIARY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("OSTIARY_DATA names no folder of public sets")
    return Path(folder)


@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "shape"),
    [
        ("cifar10", 48_000, 5_000, 10, (3, 32, 32)),
        ("mnist/mnist.npz", 60_000, 10_000, 10, (1, 28, 28)),
        ("gtsrb32/gtsrb32.npz", 13_070, 6_315, 43, (3, 32, 32)),
        ("tinyimagenet20/tinyimagenet20.npz", 4_000, 1_000, 20, (3, 64, 64)),
    ],
)
def test_public_sets_have_their_published_sizes(
    root: Path, name: str, train: int, test: int, classes: int, shape: tuple[int, int, int]
) -> None:
    if not (root / name).exists():
        pytest.skip(f"{name} is not in OSTIARY_DATA")
    first, second = open_data(root / name), open_data(root / name, "test")
    assert (len(first), len(second)) == (train, test)
    assert (len(first.classes), first.shape) == (classes, shape)
    assert first.classes == second.classes
    assert 0.05 < float(first.take(range(64)).mean()) < 0.95


def test_a_trusted_subset_of_cifar10_is_balanced(root: Path) -> None:
    if not (root / "cifar10").exists():
        pytest.skip("cifar10 is not in OSTIARY_DATA")
    data = trusted_subset(open_data(root / "cifar10", "test"), 500, seed=1)
    assert per_class_counts(data) == (50,) * 10
    assert data.take([0, 499]).shape == (2, 3, 32, 32)
