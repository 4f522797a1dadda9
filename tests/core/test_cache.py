"""The cache of arrays: whole or not there, bounded, shared between processes, and no trouble when it cannot be had."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from ostiary.cli.settings import SETTINGS
from ostiary.core import cache as module
from ostiary.core.cache import FILE, LIMIT_GB, NOWHERE, ROOT, ArrayCache, key_of
from ostiary.core.errors import ConfigError, OutputError

MB = 2**20


def keep(cache: ArrayCache, key: str, value: float = 1.0, n: int = 64) -> np.ndarray:
    with cache.write(key, (n, 8), np.float16) as values:
        values[:] = value
    return values


@pytest.fixture
def cache(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", MB)


def test_what_was_written_is_found_and_cannot_be_changed(cache: ArrayCache) -> None:
    assert cache.get("a") is None
    keep(cache, "a", 2.0)
    assert cache.size == (cache.root / "a" / FILE).stat().st_size > 64 * 8 * 2
    found = cache.get("a")
    assert found is not None and found.dtype == np.float16 and (found == 2.0).all()
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_keys_differ_by_every_part() -> None:
    assert len({key_of("a", "bc"), key_of("ab", "c"), key_of("a", "b", "c"), key_of("a", "bc", "")}) == 4


def test_a_writer_that_fails_leaves_nothing(cache: ArrayCache) -> None:
    with pytest.raises(RuntimeError), cache.write("a", (4, 4), np.float16):
        raise RuntimeError
    assert cache.get("a") is None and not list(cache.root.iterdir())


def test_what_a_dead_process_left_is_removed_later_and_not_before(cache: ArrayCache) -> None:
    keep(cache, "a")
    for name, age in ((".part-old", 2 * module.STALE), (".part-new", 0.0)):
        (cache.root / name).mkdir()
        (cache.root / name / FILE).write_bytes(b"half")
        os.utime(cache.root / name, (time.time() - age,) * 2)
    keep(cache, "b")
    assert {path.name for path in cache.root.iterdir()} == {"a", "b", ".part-new"}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all"])
def test_a_damaged_array_counts_as_missing_and_is_written_anew(cache: ArrayCache, content: bytes) -> None:
    keep(cache, "a")
    (cache.root / "a" / FILE).write_bytes(content)
    assert cache.get("a") is None
    assert (keep(cache, "a", 3.0) == 3.0).all()
    found = cache.get("a")
    assert found is not None and (found == 3.0).all()


def test_a_pickle_is_not_loaded(cache: ArrayCache) -> None:
    (cache.root / "a").mkdir(parents=True)
    np.save(cache.root / "a" / FILE, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert cache.get("a") is None


def test_the_least_recently_used_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, 3 * 64 * 8 * 2 + 3 * 128)
    for number, key in enumerate("abc"):
        keep(cache, key)
        os.utime(cache.root / key, (time.time() - 100 + number,) * 2)
    held = cache.get("a")  # used just now
    assert held is not None
    keep(cache, "d")
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in cache.root.rglob(FILE)) <= cache.limit


def test_an_array_that_is_taken_away_stays_readable_to_its_reader(cache: ArrayCache) -> None:
    keep(cache, "a", 5.0)
    held = cache.get("a")
    ArrayCache(cache.root, 2 * 64 * 8)._evict(0)
    assert cache.get("a") is None
    assert held is not None and (held == 5.0).all()


def test_without_room_arrays_are_temporary(cache: ArrayCache, tmp_path: Path) -> None:
    for one in (NOWHERE, ArrayCache(tmp_path / "small", 16), ArrayCache(Path(os.devnull) / "no", MB)):
        assert (keep(one, "a", 4.0) == 4.0).all()
        assert one.get("a") is None


def test_a_full_disk_is_told_and_does_not_end_the_process(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="no room on the disk"):
        keep(cache, "a")
    assert not list(cache.root.iterdir())


def _write(root: Path, value: float, barrier: "multiprocessing.synchronize.Barrier") -> None:
    with ArrayCache(root, MB).write("a", (64, 8), np.float16) as values:
        values[:] = value
        barrier.wait(60)


def test_of_two_writers_at_once_one_wins_and_both_go_on(cache: ArrayCache) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write, args=(cache.root, value, barrier)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = cache.get("a")
    assert found is not None and len(np.unique(found)) == 1
    assert [path.name for path in cache.root.iterdir()] == ["a"]


def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OSTIARY_CACHE", str(tmp_path))
    monkeypatch.setenv("OSTIARY_CACHE_LIMIT", "0.5")
    assert ArrayCache.default() == ArrayCache(tmp_path, 500_000_000)
    monkeypatch.setenv("OSTIARY_CACHE_LIMIT", "much")
    with pytest.raises(ConfigError, match="number of GB"):
        ArrayCache.default()
    assert (SETTINGS["cache"].default, SETTINGS["cache_limit"].default) == (ROOT, LIMIT_GB)
