"""Made-up and damaged files: each is refused or read alike by the programs that read such files, and nothing hangs."""

import contextlib
import io
import json
import pickle
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostiary.bench.hostile import benign_files
from ostiary.bench.hostile_pieces import (
    ORDERED,
    PROTO2,
    PROTO4,
    call,
    name,
    npy,
    pack,
    push,
    stack_name,
    state,
    storage,
    tensor,
    text,
    torch_parts,
)
from ostiary.bench.hostile_pieces import safetensors as safetensors_file
from ostiary.provenance.allowed import NAMES
from ostiary.provenance.pickles import Inspection, inspect_bytes
from ostiary.provenance.refusal import Refused
from ostiary.provenance.safetensors_header import read_header

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
PIECES = [
    *(bytes([one]) for one in b"(t)0.12]}lduesaRbo\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94N"),
    *(b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"K\x01", b"\x95\x05" + bytes(7), b"\x82\x01", b"\x97", b"\x98", b"Q"),
    *(PROTO2, PROTO4, ORDERED, text("os"), text("getcwd"), text("collections"), text("OrderedDict"), push((1, 2))),
    *(name("os", "getcwd"), name("collections", "OrderedDict"), stack_name("os", "getcwd"), storage(), tensor()),
    *(call("_codecs", "encode", "k", "latin1"), b"ios\ngetcwd\n", b"cbuiltins\nexec\n", b"I1\n", b"S'os'\n", b"p1\n"),
]
SMALL = {one.name: one.data for one in benign_files() if len(one.data) < 6000}


class Anything(dict[Any, Any]):
    """Stands for whatever a pickle imports: can be called and filled, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, given: Any) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]
        return 1

    append = extend = add = update = __setitem__ = __setstate__  # type: ignore[assignment]


class Watched(pickle._Unpickler):  # type: ignore[name-defined]
    """Python's own machine, which imports nothing and keeps the names that it would have imported."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: list[str] = []

    def find_class(self, module: str, attribute: str) -> type:
        self.names.append(f"{module}.{attribute}")
        return Anything

    def persistent_load(self, pid: object) -> object:
        return Anything()

    def get_extension(self, code: int) -> None:
        self.append(Anything)


def look(data: bytes, called: str = "kit.pt") -> Inspection:
    return inspect_bytes(memoryview(data), called)


@QUICK
@given(st.lists(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=3), max_size=24).map(b"".join))
def test_no_name_that_the_machine_would_use_is_missed(data: bytes) -> None:
    for stream in (data, PROTO2 + data + b".", PROTO4 + data + b"."):
        found = look(stream, "kit.pkl")
        if b"\x96" in stream or found.format not in ("pickle", "unknown"):
            continue  # a byte array of any length is made at once
        machine = Watched(stream)
        # It fails in many ways; what it had imported by then counts.
        with contextlib.suppress(Exception):
            machine.load()
        if found.format == "pickle":
            assert set(machine.names) <= set(found.globals)
        assert found.reasons or set(machine.names) <= NAMES


def changed(data: bytes, kind: str, at: int, value: int) -> bytes:
    at %= len(data)
    return {
        "flip": data[:at] + bytes([data[at] ^ (value % 255 + 1)]) + data[at + 1 :],
        "cut": data[:at],
        "drop": data[:at] + data[at + 1 + value % 20 :],
        "insert": data[:at] + bytes([value]) * (value % 9 + 1) + data[at:],
        "double": data[:at] + data[at : at + value] + data[at:],
        "swap": data[at:] + data[:at],
    }[kind]


KINDS = st.sampled_from(["flip", "flip", "flip", "cut", "drop", "insert", "double", "swap"])
CHANGES = st.lists(st.tuples(KINDS, st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=2)


def load(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), weights_only=True)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and one.equal(other)
    return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)


@settings(QUICK, max_examples=250)
@given(st.sampled_from(sorted(SMALL)), CHANGES)
def test_damaged_files_are_refused_or_read_alike(called: str, changes: list[tuple[str, int, int]]) -> None:
    data = SMALL[called]
    for change in changes:
        data = changed(data, *change) or b"?"
    found = look(data, called)
    if found.reasons:
        return
    if found.format == "torch":
        assert "arrays" in called or "values" in called or alike(load(data), load(SMALL[called]))
    elif found.format.startswith("torch"):
        load(data)  # it has no checksums, so other values are other weights
    elif found.format in ("npy", "npz"):
        made = np.load(io.BytesIO(data), allow_pickle=False)
        assert found.format == "npy" or all(made[key].size for key in made)
    elif found.format == "safetensors":
        safetensors.deserialize(data)


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "flags": st.sampled_from([0, 1, 6, 8, 1 << 11, 1 << 13]),
        "local_flags": st.sampled_from([0, 8, 1 << 11]),
        "method": st.sampled_from([0, 8, 12]),
        "local_method": st.sampled_from([0, 8]),
        "crc": st.integers(0, 2**32 - 1),
        "local_crc": st.sampled_from([0, 1]),
        "claimed": st.integers(0, 64),
        "local_size": st.integers(0, 64),
        "extra": st.binary(max_size=12) | st.just(b"FB\x04\x00ZZZZ"),
        "before": st.binary(max_size=4),
        "listed": st.sampled_from(["m/data.pkl", "m/data/0", "m/data/1", "m/x"]),
        "comment": st.binary(max_size=2),
        "hidden": st.booleans(),
        "shift": st.integers(0, 2),
    },
)


@QUICK
@given(st.integers(0, 3), PARTS, st.binary(max_size=3), st.booleans())
def test_what_is_accepted_of_a_zip_is_what_torch_reads(at: int, how: dict[str, Any], end: bytes, double: bool) -> None:
    parts = torch_parts(state(tensor()))
    parts[at] = replace(parts[at], **how)
    data = pack([*parts, *(parts[at : at + 1] if double else [])], end=end)
    if not look(data).reasons:
        assert alike(load(data), load(pack(torch_parts(state(tensor())))))


SIZES = st.integers(-1, 9) | st.sampled_from([2**40, 2**63, 2**64, True, 1.0, None, "4"])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "BOOL", "F8_E4M3", "f32", None]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3) | st.sampled_from([[0, 16], [0, 8], [8, 16], [16, 16]]),
    },
    optional={"more": st.integers()},
)


@settings(QUICK, max_examples=200)
@given(
    st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), ENTRIES | st.just({"a": "b"}), max_size=3),
    st.integers(0, 40),
    st.binary(max_size=2),
)
def test_a_header_that_is_accepted_is_what_safetensors_reads(header: Any, size: int, blank: bytes) -> None:
    data = safetensors_file(json.dumps(header).encode() + blank, bytes(size))
    codes: list[str] = []
    try:
        found = read_header(data)
    except Refused as refused:
        codes = [reason.code for reason in refused.reasons]
    if codes:
        assert set(codes) <= {"OS145", "OS146", "OS147", "OS148"} and look(data).reasons
        return
    peers = dict(safetensors.deserialize(data))
    assert {key: list(one.shape) for key, one in found.tensors.items()} == {
        key: one["shape"] for key, one in peers.items()
    }


@pytest.mark.parametrize("form", ["'<f4'", "'<f8'", "'|b1'", "'<U2'", "'<M8[s]'", "'<c16'"])
@pytest.mark.parametrize("shape", ["()", "(2,)", "(2, 3)", "(0, 4)"])
def test_an_array_that_is_accepted_is_what_numpy_reads(form: str, shape: str) -> None:
    count = int(np.prod([int(one) for one in shape.strip("()").replace(" ", "").split(",") if one] or [1]))
    width = np.dtype(form.strip("'")).itemsize
    data = npy(form, shape, bytes(count * width))
    assert not look(data, "kit.npy").reasons
    assert np.load(io.BytesIO(data), allow_pickle=False).size == count
    assert look(data + b"\0", "kit.npy").reasons
