"""The manifest: its root binds names, nothing is left out, and nothing but files is taken."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.core.errors import FormatError
from ostiary.provenance import manifest
from ostiary.provenance.files import Root, bad_name, collisions
from ostiary.provenance.manifest import FileDigest, Manifest, digest, merkle_root
from ostiary.provenance.refusal import Refused

# The entries and roots of the reference tests of Certificate Transparency, RFC 6962.
ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "inner" / "more").mkdir(parents=True)
    for name in ("b", "a", "inner/c", "inner/more/d", ".hidden"):
        (made / name).write_text(name)
    return made


def refused(path: Path) -> list[str]:
    with pytest.raises(Refused) as caught:
        digest(path)
    return [reason.code for reason in caught.value.reasons]


@pytest.mark.parametrize("count", ROOTS)
def test_the_tree_is_that_of_rfc_6962(count: int) -> None:
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(entry)).digest() for entry in ENTRIES[:count]]
    assert merkle_root(leaves).hex() == ROOTS[count]


def test_the_tree_of_nothing_is_the_digest_of_nothing() -> None:
    assert merkle_root([]) == hashlib.sha256().digest()


def test_files_come_in_order_of_bytes_with_their_digests_and_hidden_ones_too(folder: Path) -> None:
    found = digest(folder)
    assert [file.path for file in found.files] == [".hidden", "a", "b", "inner/c", "inner/more/d"]
    assert all(file.digest == hashlib.sha256(file.path.encode()).digest() for file in found.files)
    assert [file.size for file in found.files] == [7, 1, 1, 7, 12]


def test_swapped_names_change_our_root_and_not_that_of_oms() -> None:
    one, two = b"1" * 32, b"2" * 32
    before = Manifest("sha256", (FileDigest("a", 1, one), FileDigest("b", 1, two)))
    renamed = Manifest("sha256", (FileDigest("a", 1, one), FileDigest("c", 1, two)))
    swapped = Manifest("sha256", (FileDigest("a", 1, two), FileDigest("b", 1, one)))
    assert len({before.root, renamed.root, swapped.root}) == 3
    assert before.oms_root == renamed.oms_root == hashlib.sha256(one + two).digest() != swapped.oms_root


def test_sizes_algorithms_and_empty_folders_are_bound() -> None:
    file = FileDigest("a", 1, b"1" * 32)
    made = [
        Manifest("sha256", (file,)),
        Manifest("blake3", (file,)),
        Manifest("sha256", (FileDigest("a", 2, b"1" * 32),)),
        Manifest("sha256", (file,), ("e",)),
        Manifest("sha256", ()),
        Manifest("sha256", (), ("a",)),
    ]
    assert len({one.root for one in made}) == len(made)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.binary(min_size=32, max_size=32)), max_size=5))
def test_different_manifests_have_different_roots(files: list[tuple[str, bytes]]) -> None:
    made = [FileDigest(name.replace("\ud800", "x"), 1, value) for name, value in files if name.isascii()]
    first = Manifest("sha256", tuple(made)).root
    for number in range(len(made)):
        rest = made[:number] + made[number + 1 :]
        assert Manifest("sha256", tuple(rest)).root != first
        other = FileDigest(made[number].path + "x", 1, made[number].digest)
        assert Manifest("sha256", (*made[:number], other, *made[number + 1 :])).root != first


def test_folders_above_a_model_may_be_links(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert digest(link / "a") == digest(folder / "a")
    assert digest(link / "inner") == digest(folder / "inner")


def test_a_file_alone_has_its_own_name_and_empty_ones_count(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"")
    (file,) = digest(tmp_path / "m.bin").files
    assert (file.path, file.size, file.digest) == ("m.bin", 0, hashlib.sha256().digest())
    (tmp_path / "e").mkdir()
    assert digest(tmp_path / "e").files == () and digest(tmp_path).empty_folders == ("e",)


def test_large_files_in_threads_give_what_small_ones_give(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "large").write_bytes(os.urandom(3 * manifest.CHUNK + 5))
    before = digest(folder)
    monkeypatch.setattr(manifest, "LARGE", 1)
    assert digest(folder) == before


def test_blake3_is_that_of_its_package(folder: Path) -> None:
    blake3 = pytest.importorskip("blake3")
    assert digest(folder, "blake3").files[1].digest == blake3.blake3(b"a").digest()


def test_progress_counts_every_byte(folder: Path) -> None:
    counted: list[int] = []
    found = digest(folder, on_bytes=counted.append)
    assert sum(counted) == sum(file.size for file in found.files)


def test_links_pipes_and_sockets_are_refused(folder: Path) -> None:
    assert digest(folder).files
    (folder / "link").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        (folder / "inner" / "loop").symlink_to("..")
        assert refused(folder) == ["OS702"] * 4


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_to_the_model_itself_is_refused(folder: Path, kind: str) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder / "a" if kind == "file" else folder)
    assert refused(link) == ["OS702"]


@pytest.mark.parametrize("name", [b"b\xff", b"c\\d", b"e\nf", b"g\x7f"])
def test_names_that_are_no_plain_text_are_refused(folder: Path, name: bytes) -> None:
    with open(os.fsencode(folder) + b"/" + name, "wb"):
        pass
    assert refused(folder) == ["OS703"]


@pytest.mark.parametrize(
    "names", [("Ab", "aB"), ("\u00e9", "e\u0301"), ("ß", "SS"), ("\ufb01x", "FIx"), ("D/x", "d/x"), ("F", "f/x")]
)
def test_names_that_some_file_systems_take_for_one_are_refused(folder: Path, names: tuple[str, str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert set(refused(folder)) == {"OS704"}


def test_one_form_of_a_letter_is_no_collision(folder: Path) -> None:
    (folder / "\u00e9").write_text("x")
    (folder / "e").write_text("x")
    assert len(digest(folder).files) == 7 and collisions(["a", "b", "ab"]) == []


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/.", "a\x00b", "a\\b", "\ud800"])
def test_signed_names_that_lead_elsewhere_are_bad(name: str) -> None:
    assert bad_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", ".git/config", "..a", "a..b", "\u00e9", "a b"])
def test_other_names_are_not(name: str) -> None:
    assert bad_name(name) is None


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.readv

    def then_grow(file: int, buffers: list[memoryview]) -> int:
        count = read(file, buffers)
        if count == 1:
            with (folder / "a").open("a") as stream:
                stream.write("x")
        return count

    monkeypatch.setattr(os, "readv", then_grow)
    assert refused(folder) == ["OS706"]


def test_a_folder_that_is_swapped_for_a_link_meanwhile_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing saw a folder; before its file is opened it becomes a link to one that has such a file, too."""
    listed = manifest.listed

    def then_swap(root: Root) -> object:
        found = listed(root)
        (folder / "inner").rename(folder.parent / "moved")
        (folder / "inner").symlink_to(folder.parent / "moved")
        return found

    monkeypatch.setattr(manifest, "listed", then_swap)
    assert refused(folder) == ["OS702"]


def test_the_folder_opened_first_is_read_even_if_another_takes_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, listed = digest(folder), manifest.listed

    def then_swap(root: Root) -> object:
        found = listed(root)
        folder.rename(folder.parent / "away")
        folder.mkdir()
        (folder / "a").write_text("another")
        return found

    monkeypatch.setattr(manifest, "listed", then_swap)
    assert digest(folder) == before


def test_missing_and_unreadable_ones_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="no such file"):
        digest(folder / "none")

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readv", broken)
    with pytest.raises(FormatError, match=r"cannot read '.hidden'"):
        digest(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.provenance.files.MAX_FILES", 3)
    assert refused(folder) == ["OS705"]
