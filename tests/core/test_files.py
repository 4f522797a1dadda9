"""Whole files or none."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from ostiary.core.errors import DataError, OutputError
from ostiary.core.files import atomic, refuse_existing, sha256_file, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.txt"
    with atomic(target) as temporary:
        temporary.write_text("half")
        assert not target.exists() and temporary.parent.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole" and names(target.parent) == ["out.txt"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic(tmp_path / "out") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["a"]


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(OutputError, match="exists already"), atomic(target):
        pytest.fail("the block ran")
    with pytest.raises(OutputError, match="exists already") as caught:
        refuse_existing(target)
    assert "nothing is overwritten" in (caught.value.hint or "")
    assert target.read_text() == "old" and names(tmp_path) == ["out"]
    write_text(target, "new", replace=True)
    assert target.read_text() == "new"


def test_an_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def race() -> None:
        with atomic(target) as temporary:
            temporary.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert target.read_text() == "theirs" and names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), DataError("x")])
def test_a_failure_inside_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with atomic(tmp_path / "out") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="no space left on device") as caught:
        write_text(tmp_path / "out", "text")
    assert "free space" in (caught.value.hint or "") and names(tmp_path) == []


@pytest.mark.parametrize("replace", [False, True])
def test_a_full_disk_while_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    target = tmp_path / "out"
    if replace:
        target.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="no space left on device"):
        write_text(target, "new", replace=replace)
    assert names(tmp_path) == (["out"] if replace else [])
    assert not replace or target.read_text() == "old"


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "out", "text")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path, "text", replace=True)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 10000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 10000).hexdigest()
