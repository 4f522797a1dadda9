"""Where each search wants each image to go."""

import pytest
import torch

from ostiary.scan.aims import Aim, OfPairs, ToClass, ToShifted

Y = torch.tensor([0, 1, 2, 2])
AIMS: tuple[Aim, ...] = (ToClass(torch.arange(3)), ToShifted(3), OfPairs(3))


@pytest.mark.parametrize("aim", AIMS, ids=[type(aim).__name__ for aim in AIMS])
def test_rows_of_searches_and_columns_of_images(aim: Aim) -> None:
    every = torch.arange(len(aim))
    wanted, counted = aim.wanted(every, Y), aim.counted(every, Y)
    assert wanted.shape == (len(aim), 4) and counted.shape[1:] == (len(aim), 4) and counted.dtype == torch.bool
    some = torch.tensor([1])
    assert torch.equal(aim.wanted(some, Y)[0], wanted[1]) and torch.equal(aim.counted(some, Y)[:, 0], counted[:, 1])
    assert wanted.min() >= 0 and wanted.max() < 3


def test_to_a_class_its_own_images_do_not_count() -> None:
    aim = ToClass(torch.tensor([2, 0]))
    at = torch.arange(2)
    assert aim.wanted(at, Y).tolist() == [[2] * 4, [0] * 4]
    assert aim.counted(at, Y)[0].tolist() == [[True, True, False, False], [False, True, True, True]]


def test_a_step_moves_every_class_on_and_none_stays() -> None:
    aim = ToShifted(3)
    wanted = aim.wanted(torch.arange(len(aim)), Y)
    assert wanted.tolist() == [[1, 2, 0, 0], [2, 0, 1, 1]]
    assert (wanted != Y).all() and aim.counted(torch.arange(2), Y).all()


def test_pairs_are_all_ordered_pairs_once_and_others_stay() -> None:
    aim = OfPairs(4)
    every = torch.arange(len(aim))
    pairs = list(zip(aim.sources(every).tolist(), aim.targets(every).tolist(), strict=True))
    assert sorted(pairs) == [(s, t) for s in range(4) for t in range(4) if s != t]
    row = torch.tensor([pairs.index((2, 1))])
    assert aim.wanted(row, Y).tolist() == [[0, 1, 1, 1]]
    assert aim.counted(row, Y)[:, 0].tolist() == [[False, False, True, True], [True, True, False, False]]
