"""Manifests of data sets: roots, the file and what may be wrong with it, proofs, differences, groups."""

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.core.errors import ConfigError, DataError, FormatError, OutputError
from ostiary.provenance.manifest import merkle_root
from ostiary.provenance.refusal import Refused
from ostiary.provenance.samples import sorting
from ostiary.provenance.samples.compare import Change, changes, differences, repeated
from ostiary.provenance.samples.leaf import (
    Sample,
    Tree,
    content_of_array,
    content_of_bytes,
    content_of_talk,
    leaf_of,
    odd,
    root_of,
)
from ostiary.provenance.samples.manifest import (
    MAGIC,
    MAX_HEAD,
    NO_LABEL,
    About,
    SampleManifest,
    about_set,
    is_manifest,
    write_manifest,
)
from ostiary.provenance.samples.proof import check_proof, prove, read_proof
from ostiary.provenance.samples.sorting import Sorted

ABOUT = About(name="set", kind="text")


def sample(identity: str, text: str = "", label: str | None = "a", source: str = "s") -> Sample:
    return Sample(identity, content_of_bytes((text or identity).encode()), label, source)


FEW = [sample("b"), sample("a", label="b"), sample("c", label=None, source="t"), sample("ä/10"), sample("ä/9")]


def written(path: Path, samples: Sequence[Sample], about: About = ABOUT) -> SampleManifest:
    write_manifest(path, about, samples)
    return SampleManifest(path)


def codes(call: Callable[[], Any]) -> set[str]:
    with pytest.raises(Refused) as caught:
        call()
    return {reason.code for reason in caught.value.reasons}


@given(st.integers(0, 3000))
@settings(max_examples=40, deadline=None)
def test_the_tree_that_grows_is_that_of_all_leaves(count: int) -> None:
    leaves = [hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(count)]
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.hash() == merkle_root(leaves)
    assert tree.root() == root_of(count, merkle_root(leaves))


def test_a_leaf_is_framed_as_documented() -> None:
    def framed(part: bytes) -> bytes:
        return struct.pack(">Q", len(part)) + part

    one = Sample("id", b"\x07" * 32, "cat", "web")
    parts = [framed(b"text"), framed(b"id"), framed(b"\x07" * 32), b"\x01" + framed(b"cat"), framed(b"web")]
    assert leaf_of("text", one) == hashlib.sha256(b"\x00ostiary samples v1\x00" + b"".join(parts)).digest()
    parts[3] = b"\x00"
    bare = one._replace(label=None)
    assert leaf_of("text", bare) == hashlib.sha256(b"\x00ostiary samples v1\x00" + b"".join(parts)).digest()


texts = st.text(min_size=1, max_size=5).filter(lambda text: odd(text, 100) is None)
anything = st.builds(Sample, texts, st.binary(min_size=32, max_size=32), st.none() | texts, texts)


@given(anything, anything, st.sampled_from(["file", "text"]), st.sampled_from(["file", "text"]))
def test_two_samples_have_one_leaf_only_if_they_are_the_same(one: Sample, other: Sample, a: Any, b: Any) -> None:
    assert (leaf_of(a, one) == leaf_of(b, other)) == ((a, one) == (b, other))


def test_text_moved_from_one_field_to_the_next_is_another_leaf() -> None:
    content = bytes(32)
    leaves = {
        leaf_of("text", Sample(*fields))
        for fields in [("ab", content, "c", "d"), ("a", content, "bc", "d"), ("ab", content, "cd", "d")]
    }
    assert len(leaves) == 3


def test_contents_bind_type_shape_and_the_border_between_prompt_and_answer() -> None:
    data = bytes(range(12))
    made = [
        content_of_array(dtype, shape, data) for dtype, shape in [("|u1", (3, 4)), ("|u1", (4, 3)), ("|i1", (3, 4))]
    ]
    assert len({*made, content_of_bytes(data)}) == 4
    assert content_of_talk("ab", "c") != content_of_talk("a", "bc")
    assert content_of_bytes(b"x").hex() == hashlib.sha256(b"x").hexdigest()


@given(st.permutations(FEW))
@settings(max_examples=20)
def test_a_set_in_another_order_is_the_same_file(tmp_path_factory: pytest.TempPathFactory, order: list[Sample]) -> None:
    folder = tmp_path_factory.mktemp("order")
    one, other = folder / "one", folder / "other"
    assert write_manifest(one, ABOUT, FEW) == write_manifest(other, ABOUT, order)
    assert one.read_bytes() == other.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    summary = write_manifest(tmp_path / "m", ABOUT, FEW)
    manifest = SampleManifest(tmp_path / "m")
    assert sorted(FEW) == list(manifest.samples())
    assert manifest.summary() == summary
    assert summary.sha256 == hashlib.sha256((tmp_path / "m").read_bytes()).digest()
    assert (summary.labels, summary.sources) == ({"a": 3, "b": 1}, {"s": 4, "t": 1})
    assert summary.root == root_of(5, merkle_root([leaf_of("text", one) for one in sorted(FEW)]))
    assert is_manifest(tmp_path / "m") and not is_manifest(tmp_path / "none")


@pytest.mark.parametrize(
    "change", [{"content": bytes(32)}, {"label": "b"}, {"label": None}, {"source": "t"}, {"id": "z"}]
)
def test_every_part_of_a_sample_is_bound(tmp_path: Path, change: dict[str, Any]) -> None:
    before = write_manifest(tmp_path / "one", ABOUT, FEW).root
    altered = [FEW[0]._replace(**change), *FEW[1:]]
    assert write_manifest(tmp_path / "two", ABOUT, altered).root != before
    assert write_manifest(tmp_path / "three", ABOUT, [FEW[0]._replace(), *FEW[1:]]).root == before


def test_many_runs_are_merged_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN", 7)
    monkeypatch.setattr(sorting, "MOST_RUNS", 3)
    entries = [(str(number * 7919 % 1000).encode(), bytes([number % 5])) for number in range(1000)]
    rows = Sorted(entries)
    assert list(rows) == sorted(entries) == list(rows) and len(rows) == 1000
    rows.close()


def test_the_file_does_not_depend_on_how_much_is_sorted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [sample(f"{number * 7919 % 5000}", label=str(number % 3)) for number in range(5000)]
    whole = write_manifest(tmp_path / "one", ABOUT, many)
    monkeypatch.setattr(sorting, "RUN", 100)
    assert write_manifest(tmp_path / "two", ABOUT, many) == whole


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "no samples"),
        ([sample("a"), sample("b"), sample("a", "other")], "'a' names two samples"),
        ([sample("a\nb")], "control characters"),
        ([sample("a", label="x\x1b[31m")], "no label"),
        ([sample("a", source="x\x00")], "no source"),
        ([sample("a", source="")], "no source: it is empty"),
        ([sample("a", label="")], "it is empty"),
        ([sample("a" * 5000)], "more than 4096 bytes"),
        ([sample("a", label="ä" * 513)], "more than 1024 bytes"),
        ([Sample("\ud800", bytes(32), "a", "s")], "half a character"),
    ],
)
def test_what_cannot_be_named_is_refused(tmp_path: Path, samples: list[Sample], words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_manifest(tmp_path / "m", ABOUT, samples)
    assert list(tmp_path.iterdir()) == []


def test_what_tells_no_source_is_from_the_set_itself(tmp_path: Path) -> None:
    manifest = written(tmp_path / "m", [sample("a"), sample("b")._replace(source=None)])
    assert [one.source for one in manifest.samples()] == ["s", "set"]


def test_odd_letters_are_no_control_characters(tmp_path: Path) -> None:
    names = ["猫/ñ\u00a0x", "e\u0301", "\u00e9", "🐈", "a" * 4096, "\u202ex"]
    manifest = written(tmp_path / "m", [sample(name, label=name[:5]) for name in names])
    assert {one.id for one in manifest.samples()} == set(names)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    written(tmp_path / "m", FEW)
    with pytest.raises(OutputError, match="exists already"):
        write_manifest(tmp_path / "m", ABOUT, FEW)
    with pytest.raises(ConfigError, match="no name of a set"):
        about_set("a/b", "text", "train", None)


def rebuilt(
    path: Path, *, head: Callable[[dict[str, Any]], Any] = dict, body: Callable[[bytes], bytes] = bytes
) -> None:
    """The manifest with its head or its records changed; the root stays as it was."""
    data = path.read_bytes()
    size = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")
    start = len(MAGIC) + 4
    value = json.loads(data[start : start + size])
    made = head(value)
    text = made if isinstance(made, bytes) else json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(MAGIC + len(text).to_bytes(4, "big") + text + body(data[start + size :]))


def record(identity: bytes, label: int = 0, source: int = 0) -> bytes:
    return struct.pack(">H", len(identity)) + identity + bytes(32) + struct.pack(">II", label, source)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "m", ABOUT, [sample("a"), sample("b", label="b"), sample("c", label="b")])
    return tmp_path / "m"


def read(path: Path) -> list[Sample]:
    return list(SampleManifest(path).samples())


def test_rebuilding_without_a_change_changes_nothing(manifest: Path) -> None:
    before = manifest.read_bytes()
    rebuilt(manifest)
    assert manifest.read_bytes() == before and len(read(manifest)) == 3


@pytest.mark.parametrize(
    "head",
    [
        lambda value: {**value, "count": 4},
        lambda value: {**value, "count": 2},
        lambda value: {**value, "count": 0},
        lambda value: {**value, "count": 2**39},
        lambda value: {**value, "count": True},
        lambda value: {**value, "kind": "video"},
        lambda value: {**value, "name": "a/b"},
        lambda value: {**value, "extra": 1},
        lambda value: {**value, "labels": ["b", "a"]},
        lambda value: {**value, "labels": ["a", "a"]},
        lambda value: {**value, "labels": ["a", "b", "c"]},
        lambda value: {**value, "labels": ["a"]},
        lambda value: {**value, "labels": ["a", "b\u0007"]},
        lambda value: {**value, "sources": []},
        lambda value: {**value, "sources": ["s", "t"]},
        lambda value: json.dumps(value).encode(),
        lambda value: b'{"count":3,"count":3}',
        lambda value: b"[" * 100_000,
        lambda value: b"{}",
        lambda value: b"\xff",
    ],
)
def test_a_head_that_is_ill_formed_is_refused(manifest: Path, head: Any) -> None:
    rebuilt(manifest, head=head)
    assert codes(lambda: read(manifest)) == {"OS751"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: b"", "OS751"),
        (lambda data: data[:10], "OS751"),
        (lambda data: b"X" + data[1:], "OS751"),
        (lambda data: MAGIC + (MAX_HEAD + 1).to_bytes(4, "big") + data, "OS751"),
        (lambda data: MAGIC + b"\xff\xff\xff\xff" + data, "OS751"),
        (lambda data: data[:-1], "OS751"),
        (lambda data: data[:-33], "OS751"),
        (lambda data: data + b"\x00", "OS751"),
        (lambda data: data + bytes(2**20), "OS751"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "OS753"),
        (lambda data: data[:-60] + bytes([data[-60] ^ 1]) + data[-59:], "OS753"),
    ],
)
def test_a_file_that_was_altered_is_refused(manifest: Path, change: Callable[[bytes], bytes], code: str) -> None:
    assert len(read(manifest)) == 3
    manifest.write_bytes(change(manifest.read_bytes()))
    assert codes(lambda: read(manifest)) == {code}


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([record(b"b"), record(b"a", 1), record(b"c", 1)], "OS752"),
        ([record(b"a"), record(b"a", 1), record(b"c", 1)], "OS752"),
        ([record(b""), record(b"b", 1), record(b"c", 1)], "OS751"),
        ([record(b"a\x1b"), record(b"b", 1), record(b"c", 1)], "OS751"),
        ([record(b"\xff"), record(b"\xff\xff", 1), record(b"\xff\xff\xff", 1)], "OS751"),
        ([record(b"a", 2), record(b"b", 1), record(b"c", 1)], "OS751"),
        ([record(b"a", 0, 1), record(b"b", 1), record(b"c", 1)], "OS751"),
        ([record(b"a" * 5000), record(b"b", 1), record(b"c", 1)], "OS751"),
        ([record(b"a", NO_LABEL), record(b"b", 1), record(b"c", 1)], "OS753"),
        ([record(b"a"), record(b"b", 1), record(b"c", 1)], "OS753"),
    ],
)
def test_records_that_are_ill_formed_are_refused(manifest: Path, records: list[bytes], code: str) -> None:
    rebuilt(manifest, body=lambda data: b"".join(records) + data[-32:])
    assert codes(lambda: read(manifest)) == {code}


@given(st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_byte_can_be_changed(tmp_path_factory: pytest.TempPathFactory, at: int, by: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "m"
    before = write_manifest(path, ABOUT, FEW)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= by
    path.write_bytes(data)
    # The name, the part and the column of sources are bound by what is signed alone.
    with contextlib.suppress(Refused):
        after = SampleManifest(path).summary()
        assert after.root == before.root and after.sha256 != before.sha256


def test_what_is_missing_or_a_folder_is_no_manifest(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FormatError, match="cannot read"):
            SampleManifest(path)


@given(st.integers(1, 70), st.data())
@settings(max_examples=40, deadline=None)
def test_a_proof_holds_for_its_sample_alone(tmp_path_factory: pytest.TempPathFactory, count: int, data: Any) -> None:
    path = tmp_path_factory.mktemp("proof") / "m"
    summary = write_manifest(path, ABOUT, [sample(str(number)) for number in range(count)])
    proof = prove(path, str(data.draw(st.integers(0, count - 1))))
    root = summary.root.hex()
    check_proof(read_proof(proof.to_json().encode(), "p"), root, "p")
    forged = [
        proof.model_copy(update={"sample": proof.sample.model_copy(update={"label": "other"})}),
        proof.model_copy(update={"sample": proof.sample.model_copy(update={"id": "other"})}),
        proof.model_copy(update={"sample": proof.sample.model_copy(update={"source": "other"})}),
        proof.model_copy(update={"kind": "file"}),
        proof.model_copy(update={"index": proof.index + 1}),
        proof.model_copy(update={"count": count + 1}),
        proof.model_copy(update={"path": (*proof.path, "00" * 32)}),
        proof.model_copy(update={"root": "00" * 32}),
    ]
    if proof.path:
        forged.append(proof.model_copy(update={"path": proof.path[:-1]}))
        forged.append(proof.model_copy(update={"path": ("00" * 32, *proof.path[1:])}))
    for one in forged:
        assert codes(lambda one=one: check_proof(one, root, "p")) == {"OS759"}
    assert codes(lambda: check_proof(proof, "00" * 32, "p")) == {"OS759"}


def test_proofs_that_are_none_are_refused(manifest: Path) -> None:
    proof = json.loads(prove(manifest, "b").to_json())
    read_proof(json.dumps(proof).encode(), "p")
    for change in (
        {"format": "ostiary sample proof 2"},
        {"index": -1},
        {"count": 0},
        {"path": ["zz"]},
        {"path": ["00" * 32] * 65},
        {"extra": 1},
        {"sample": {**proof["sample"], "id": "a\x1b[2J"}},
        {"sample": {**proof["sample"], "content": "00"}},
    ):
        assert codes(lambda change=change: read_proof(json.dumps({**proof, **change}).encode(), "p")) == {"OS759"}
    assert codes(lambda: read_proof(b'{"a":1,"a":2}', "p")) == {"OS722"}
    with pytest.raises(DataError, match="has no sample 'z'"):
        prove(manifest, "z")


def test_differences_are_typed_and_exact(tmp_path: Path) -> None:
    before = [sample("a"), sample("b"), sample("c"), sample("d"), sample("e"), sample("f")]
    after = [
        sample("a"),
        sample("b", "other"),
        sample("c", label="x"),
        sample("d", source="t"),
        sample("f", "new", label=None, source="t"),
        sample("g"),
    ]
    found = list(differences(written(tmp_path / "one", before), written(tmp_path / "two", after)))
    assert [(one.what, one.id) for one in found] == [
        ("altered", "b"),
        ("relabelled", "c"),
        ("moved", "d"),
        ("removed", "e"),
        ("altered", "f"),
        ("relabelled", "f"),
        ("moved", "f"),
        ("added", "g"),
    ]
    assert found[1] == Change("relabelled", "c", "a", "x") and found[2] == Change("moved", "d", "s", "t")
    assert found[5].after is None and found[7].before is None
    assert [one.reason().code for one in found[:4]] == ["OS755", "OS757", "OS758", "OS756"]
    assert list(differences(SampleManifest(tmp_path / "one"), SampleManifest(tmp_path / "one"))) == []


def test_one_flipped_label_among_many_is_found(tmp_path: Path) -> None:
    many = [sample(f"{number}", label=str(number % 10)) for number in range(6000)]
    altered = [one._replace(label="3") if one.id == "4711" else one for one in many]
    found = list(differences(written(tmp_path / "one", many), written(tmp_path / "two", altered)))
    assert found == [Change("relabelled", "4711", "1", "3")]


small = st.builds(
    Sample, st.sampled_from("abcde"), st.sampled_from([b"1" * 32, b"2" * 32]), st.sampled_from("xy"), st.just("s")
)


@given(st.lists(small, unique_by=lambda one: one.id), st.lists(small, unique_by=lambda one: one.id))
def test_differences_are_those_of_two_tables(one: list[Sample], other: list[Sample]) -> None:
    left, right = {a.id: a for a in one}, {b.id: b for b in other}
    wanted = {("removed", name) for name in left.keys() - right} | {("added", name) for name in right.keys() - left}
    for name in left.keys() & right:
        wanted |= {("altered", name)} if left[name].content != right[name].content else set()
        wanted |= {("relabelled", name)} if left[name].label != right[name].label else set()
    assert {(c.what, c.id) for c in changes(sorted(one), sorted(other))} == wanted


def test_sets_of_two_kinds_are_not_compared(tmp_path: Path) -> None:
    one = written(tmp_path / "one", FEW)
    other = written(tmp_path / "two", FEW, About(name="set", kind="file"))
    with pytest.raises(ConfigError, match="of the kind text, the other's file"):
        list(differences(one, other))


def test_conflicts_and_duplicates(tmp_path: Path) -> None:
    rows = [
        sample("a", "same"),
        sample("b", "same", label="b"),
        sample("c", "twice"),
        sample("d", "twice"),
        sample("e", "once"),
        sample("f", "bare"),
        sample("g", "bare", label=None),
    ]
    groups = list(repeated(written(tmp_path / "m", rows)))
    assert {tuple(name for name, _ in one.samples): one.conflict for one in groups} == {
        ("a", "b"): True,
        ("c", "d"): False,
        ("f", "g"): True,
    }
    same = next(one for one in groups if one.samples[0][0] == "a")
    assert same.content == hashlib.sha256(b"same").hexdigest() and same.samples == (("a", "a"), ("b", "b"))
    assert list(repeated(written(tmp_path / "n", [sample("a"), sample("b")]))) == []


def test_a_pipe_is_no_manifest_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_manifest(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no regular file"):
        SampleManifest(tmp_path / "pipe")
