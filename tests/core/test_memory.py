"""Memory that a mapped file takes is given back, and nothing of the file is lost."""

from pathlib import Path

import numpy as np
import pytest

from ostiary.core.memory import let_go, rows_of

VALUES = 4_000_000


def resident() -> int:
    """Bytes of mapped files in this process's memory."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        pytest.skip("needs Linux's /proc")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap:
    """16 MB, written through the mapping."""
    array = np.lib.format.open_memmap(tmp_path / "values.npy", mode="w+", dtype=np.float32, shape=(VALUES // 4, 4))
    array[:] = np.arange(VALUES, dtype=np.float32).reshape(-1, 4)
    return array


def test_pages_are_let_go_and_what_was_written_stays(mapped: np.memmap) -> None:
    full = resident()
    let_go(np.asarray(mapped)[10:])
    assert full - resident() > 15e6
    assert np.array_equal(mapped.ravel(), np.arange(VALUES, dtype=np.float32))


@pytest.mark.parametrize("rows", [np.array([999_999, 5]), np.arange(VALUES // 4) % 1000 == 7])
def test_rows_are_copied_and_the_rest_takes_no_memory(mapped: np.memmap, rows: np.ndarray) -> None:
    want, full = np.array(mapped)[rows], resident()
    found = rows_of(mapped, rows)
    assert np.array_equal(found, want) and not np.shares_memory(found, mapped)
    assert full - resident() > 15e6


def test_arrays_in_memory_stay_as_they_are() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(rows_of(array[1:], np.array([1])), [[8, 9, 10, 11]])
    assert np.array_equal(array.ravel(), np.arange(12))
