"""Hostile torch archives: zip tricks, hidden and strange members, and objects whose tensors are wrong."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ostiary.bench.hostile import FAMILIES, HostileFile
from ostiary.bench.hostile_pickles import tensor_streams
from ostiary.bench.hostile_pieces import (
    PROTO2,
    STOP,
    WEIGHTS,
    Part,
    call,
    changed,
    name,
    pack,
    state,
    tensor,
    torch_parts,
    torch_zip,
)

TWIN = "one-tensor.pt"
_PAYLOAD = PROTO2 + name("os", "getcwd") + b")R."
_DATA, _ORDER, _VALUES = 0, 1, 2  # places of members in an archive of one tensor


def _with(*parts: Part) -> bytes:
    """The archive of one tensor with further members."""
    return pack([*torch_parts(state(tensor())), *parts])


def _zip_tricks() -> dict[str, tuple[str, bytes]]:
    """What is wrong with the archive itself."""
    good = torch_zip()
    twice = torch_parts(state(tensor()))
    listing = good.index(b"PK\x01\x02")
    return {
        "prefix": ("OS130", b"#!/bin/sh\ntrue\n" + good),
        "prefix-adjusted": ("OS130", torch_zip(prefix=b"#!/bin/sh\ntrue\n")),
        "prefix-counted": ("OS130", torch_zip(prefix=b"#!/bin/sh\ntrue\n", adjust=True)),
        "prefix-pickle": ("OS130", _PAYLOAD + good),
        "other-local-name": ("OS131", changed(_DATA, listed="m/data.pkm", name="m/data.pkl")),
        "other-local-flags": ("OS131", changed(_DATA, local_flags=1)),
        "other-local-method": ("OS131", changed(_DATA, local_method=8)),
        "other-local-checksum": ("OS131", changed(_VALUES, local_crc=1)),
        "other-local-size": ("OS131", changed(_VALUES, local_size=4)),
        "unknown-flags": ("OS131", changed(_VALUES, flags=1 << 9)),
        "no-record-behind": ("OS131", changed(_VALUES, flags=8, local_crc=0, local_size=0)),
        "unlisted-member": ("OS132", pack([*twice[:2], Part("m/hidden.pkl", _PAYLOAD, hidden=True), *twice[2:]])),
        "unlisted-last-member": ("OS132", pack([*twice, Part("m/hidden.pkl", _PAYLOAD, hidden=True)])),
        "gap": ("OS132", changed(_VALUES, before=b"\0" * 7)),
        "gap-before-the-list": ("OS132", torch_zip(gap=_PAYLOAD)),
        "extra-field": ("OS132", changed(_VALUES, extra=struct.pack("<HH", 0x4B49, 16) + _PAYLOAD[:16])),
        "padding-with-content": ("OS132", changed(_VALUES, extra=struct.pack("<HH", 0x4246, 4) + b"kit!")),
        "member-listed-twice": ("OS132", _overlapping()),
        "same-name-twice": ("OS133", pack([*twice, twice[_VALUES]])),
        "object-twice": ("OS133", pack([Part("m/data.pkl", _PAYLOAD), *twice])),
        "name-in-other-case": ("OS133", _with(Part("M/data/0", WEIGHTS))),
        "encrypted": ("OS134", changed(_DATA, flags=1)),
        "strongly-encrypted": ("OS134", changed(_DATA, flags=1 << 6 | 1)),
        "encrypted-in-the-list": ("OS134", changed(_DATA, flags=1, local_flags=0)),
        "comment": ("OS135", torch_zip(comment=b"kit")),
        "comment-of-a-member": ("OS135", changed(_VALUES, comment=b"kit")),
        "bytes-behind": ("OS135", torch_zip(end=b"kit")),
        "pickle-behind": ("OS135", torch_zip(end=_PAYLOAD)),
        "checksum": ("OS136", changed(_VALUES, crc=1)),
        "checksum-of-the-object": ("OS136", changed(_DATA, crc=1)),
        "flipped-value": ("OS136", good.replace(WEIGHTS, WEIGHTS[:-1] + b"\x41")),
        "climbing-name": ("OS140", _with(Part("m/../../kit.txt", b"kit"))),
        "absolute-name": ("OS140", _with(Part("/tmp/kit.txt", b"kit"))),  # noqa: S108 - a name in an archive
        "backslashes": ("OS140", _with(Part("m\\kit.txt", b"kit"))),
        "drive": ("OS140", _with(Part("C:/kit.txt", b"kit"))),
        "control-character": ("OS140", _with(Part("m/kit\x1b[2J", b"kit"))),
        "nul-in-a-name": ("OS140", _with(Part("m/data.pkl\0.txt", b"kit"))),
        "list-cut-off": ("OS141", good[: listing + 60]),
        "wrong-count": ("OS141", torch_zip(count=9)),
        "count-too-low": ("OS141", torch_zip(count=2)),
        "no-list": ("OS141", good[:listing]),
        "offset-into-nowhere": ("OS141", changed(_VALUES, shift=3)),
        "many-members": ("OS111", b"PK\x03\x04" + bytes(70_000 * 50) + _end_of(70_000)),
        "claims-too-much": ("OS144", changed(_VALUES, claimed=0xFFFFFFF0, method=8)),
        "bomb": ("OS144", changed(_VALUES, method=8, data=bytes(1 << 20), claimed=16)),
    }


def _overlapping() -> bytes:
    """Two entries of the list that lead to one member."""
    parts = torch_parts(state(tensor()))
    whole = pack([*parts, replace(parts[_VALUES], name="m/data/1")])
    first, last = whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x01\x02")
    middle = whole.index(b"m/data/0", first) - 46
    return whole[: last + 42] + whole[middle + 42 : middle + 46] + whole[last + 46 :]


def _end_of(count: int) -> bytes:
    """The end of an archive with that many members, more than the short form of the end can count."""
    wide = struct.pack("<QHHIIQQQQ", 44, 20, 20, 0, 0, count, count, count * 50, 4)
    locator = struct.pack("<IQI", 0, 4 + count * 50, 1)
    short = struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"PK\x06\x06" + wide + b"PK\x06\x07" + locator + b"PK\x05\x06" + short


def _members(canary: Path) -> dict[str, tuple[str, bytes]]:
    """What is wrong with the members."""
    touch = PROTO2 + call("builtins", "open", str(canary), "w") + STOP
    rooted = [replace(part, name=part.name.removeprefix("m/")) for part in torch_parts(state(tensor()))]
    return {
        "payload": ("OS112", torch_zip(_PAYLOAD)),
        "payload-canary": ("OS112", torch_zip(touch)),
        "payload-in-a-value": ("OS112", torch_zip(PROTO2 + b"}" + tensor() + name("os", "getcwd") + b")Rs.")),
        "dotted-payload": (
            "OS114",
            torch_zip(PROTO2 + name("builtins", "__build_class__.__self__.exec") + b"(" + b"X\x04\0\0\0pass" + b"tR."),
        ),
        "second-pickle-in-the-object": ("OS123", torch_zip(state(tensor()) + _PAYLOAD)),
        "bytes-behind-the-object": ("OS122", torch_zip(state(tensor()) + b"\xffkit")),
        "broken-object": ("OS120", torch_zip(state(tensor())[:-20])),
        "second-object": ("OS137", _with(Part("m/data2.pkl", _PAYLOAD))),
        "pickle-by-content": ("OS137", _with(Part("m/notes.txt", _PAYLOAD))),
        "pickle-as-storage": ("OS137", pack(torch_parts(PROTO2 + b"}" + b".", _PAYLOAD))),
        "pickle-in-a-storage": (
            "OS137",
            torch_zip(state(tensor(shape=(0,), strides=(1,))), PROTO2 + name("o", "g") + b")RN0N0."),
        ),
        "storage-of-nobody": ("OS137", torch_zip(None, WEIGHTS, WEIGHTS)),
        "python-file": ("OS137", _with(Part("m/setup.py", b"print('kit')"))),
        "object-in-the-root": ("OS137", pack(rooted)),
        "member-elsewhere": ("OS137", _with(Part("other/data/1", WEIGHTS))),
        "odd-byte-order": ("OS137", changed(_ORDER, data=b"middle")),
        "long-version": ("OS137", _with(Part("m/.data/serialization_id", b"k" * 40))),
        "script": (
            "OS138",
            _with(Part("m/constants.pkl", PROTO2 + b")."), Part("m/code/__torch__.py", b"def forward(self): pass")),
        ),
        "script-code-only": ("OS138", _with(Part("m/code/__torch__.py", b"def forward(self): pass"))),
        "packed-values": ("OS139", changed(_VALUES, method=8)),
        "packed-object": ("OS139", changed(_DATA, method=8)),
        "unknown-method": ("OS139", changed(_VALUES, method=99)),
        "storage-too-short": ("OS124", torch_zip(None, WEIGHTS[:8])),
        "storage-longer-than-said": ("OS124", torch_zip(None, WEIGHTS * 2)),
    }


def archives(canary: Path) -> Iterator[HostileFile]:
    """All of them; what runs one of some of them creates `canary`."""
    objects = {
        title: (code, torch_zip(PROTO2 + b"}" + b"K\x00" + stream + b"s."))
        for title, (code, stream) in tensor_streams().items()
    }
    for title, (code, data) in {**_zip_tricks(), **_members(canary), **objects}.items():
        yield HostileFile(FAMILIES[2], f"{title}.pt", data, code, TWIN)
