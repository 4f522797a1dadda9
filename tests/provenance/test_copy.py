"""A verified copy: the bytes that were checked, all of them, or nothing under that name."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from signed_case import Signed, flip, make_signed

from ostiary.core.errors import FormatError, OutputError
from ostiary.provenance.copy import copy_verified
from ostiary.provenance.manifest import LARGE, digest
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_model
from ostiary.provenance.trust import read_trust
from ostiary.provenance.verify import verify


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = make_signed(tmp_path)
    (made.folder / "large.bin").write_bytes(os.urandom(LARGE + 5))
    (made.folder / "empty" / "inner").mkdir(parents=True)
    made.signature.write_bytes(sign_model(made.folder, [made.keys["producer"]]).to_json())
    return made


def copied(signed: Signed, out: Path, **how: object) -> Path:
    copy_verified(signed.folder, signed.signature, read_trust(signed.public()), out, **how)  # type: ignore[arg-type]
    return out


def test_the_copy_is_what_was_signed_and_read_only(signed: Signed, tmp_path: Path) -> None:
    out = copied(signed, tmp_path / "copy")
    assert digest(out).root == digest(signed.folder).root
    verify(out, signed.signature, read_trust(signed.public()), name="model")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert modes == {0o444 & ~_umask()}
    assert not any(path.is_symlink() for path in out.rglob("*"))


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_model_of_one_file_comes_as_a_folder_with_it(signed: Signed, tmp_path: Path) -> None:
    file = signed.folder / "large.bin"
    signature = tmp_path / "file.sig"
    signature.write_bytes(sign_model(file, [signed.keys["producer"]]).to_json())
    copy_verified(file, signature, read_trust(signed.public()), tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["large.bin"]
    assert (tmp_path / "copy" / "large.bin").read_bytes() == file.read_bytes()


def test_what_is_ignored_is_not_copied(signed: Signed, tmp_path: Path) -> None:
    (signed.folder / ".git").mkdir()
    (signed.folder / ".git" / "hook").write_text("nobody signed this")
    with pytest.raises(Refused, match="OS709"):
        copied(signed, tmp_path / "copy")
    out = copied(signed, tmp_path / "copy", ignore=[".git"])
    assert not (out / ".git").exists() and (out / "config.json").exists()


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


@pytest.mark.parametrize("name", ["large.bin", "model-1.safetensors", "config.json"])
def test_a_file_swapped_during_the_check_does_not_reach_the_copy(signed: Signed, tmp_path: Path, name: str) -> None:
    """Whatever the moment of the swap, the copy has the signed bytes or is not there."""
    before = {path.relative_to(signed.folder): path.read_bytes() for path in signed.folder.rglob("*") if path.is_file()}
    outcomes = set()
    for moment in range(8):
        out, heard = tmp_path / f"copy{moment}", []

        def swap(count: int, heard: list[int] = heard, moment: int = moment) -> None:
            heard.append(count)
            if len(heard) == moment + 1:
                replace(signed.folder / name)

        try:
            copied(signed, out, on_bytes=swap)
        except Refused:
            assert not out.exists()
            outcomes.add("refused")
        else:
            assert {file: (out / file).read_bytes() for file in before} == before
            outcomes.add("copied")
        for file, data in before.items():
            (signed.folder / file).write_bytes(data)
    assert outcomes == {"refused", "copied"} or name == "config.json"
    assert not list(tmp_path.glob(".copy*")), "nothing half-written is left"


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\xff")


@pytest.mark.parametrize("change", [overwrite, grow])
def test_a_file_changed_in_place_while_it_is_read_is_refused(
    signed: Signed, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    heard: list[int] = []

    def meddle(count: int) -> None:
        heard.append(count)
        if len(heard) == 6:
            change(signed.folder / "large.bin")

    with pytest.raises(Refused, match=r"OS70[67]"):
        copied(signed, tmp_path / "copy", on_bytes=meddle)
    assert not (tmp_path / "copy").exists()


def test_a_refusal_leaves_nothing(signed: Signed, tmp_path: Path) -> None:
    flip(signed.folder / "config.json", 3)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refused, match=r"OS707 config\.json"):
        copied(signed, tmp_path / "copy")
    assert sorted(tmp_path.iterdir()) == before


def test_links_are_not_followed(signed: Signed, tmp_path: Path) -> None:
    (signed.folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="OS702"):
        copied(signed, tmp_path / "copy")


def test_where_the_copy_may_not_go(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        copied(signed, tmp_path / "there")
    with pytest.raises(OutputError, match="lies inside of"):
        copied(signed, signed.folder / "copy")
    with pytest.raises(FormatError, match="no such file"):
        copy_verified(tmp_path / "none", signed.signature, read_trust(signed.public()), tmp_path / "copy")
