"""Hostile files that are neither plain pickles nor torch archives: packed, disguised, other formats, safetensors."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ostiary.bench.hostile import FAMILIES, HostileFile
from ostiary.bench.hostile_pieces import (
    PROTO2,
    STOP,
    SYSTEM,
    WEIGHTS,
    Part,
    call,
    name,
    npy,
    old_layout,
    old_storage,
    pack,
    push,
    safetensors,
    state,
    tensor,
    torch_zip,
)

_PAYLOAD = PROTO2 + name("os", "getcwd") + b")R."
_ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def _tar(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        member = tarfile.TarInfo("data.pkl")
        member.size = len(_PAYLOAD)
        archive.addfile(member, io.BytesIO(_PAYLOAD))
    return buffer.getvalue()


def wrapped(canary: Path) -> Iterator[HostileFile]:
    """Compressed files, archives in place of weights, and pickles under the names of other formats."""
    touch = PROTO2 + call("builtins", "open", str(canary), "w") + STOP
    old_tar = bytearray(_tar(tarfile.USTAR_FORMAT))
    old_tar[257:265] = bytes(8)
    old_tar[148:156] = b"%06o\0 " % (sum(old_tar[:148]) + 256 + sum(old_tar[156:512]))
    packed = {
        "gzip.joblib": ("OS142", gzip.compress(touch, mtime=0)),
        "xz.joblib": ("OS142", lzma.compress(_PAYLOAD)),
        "lzma.joblib": ("OS142", lzma.compress(_PAYLOAD, lzma.FORMAT_ALONE)),
        "zlib.joblib": ("OS142", zlib.compress(_PAYLOAD)),
        "bzip2.joblib": ("OS142", bz2.compress(_PAYLOAD)),
        "lz4.joblib": (
            "OS142",
            b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", 0x80000000 | len(_PAYLOAD)) + _PAYLOAD + bytes(4),
        ),
        "zstd.pt": (
            "OS142",
            b"\x28\xb5\x2f\xfd\x20" + bytes([len(_PAYLOAD)]) + struct.pack("<I", len(_PAYLOAD) << 3 | 1)[:3] + _PAYLOAD,
        ),
        "gzip-of-a-checkpoint.pt": ("OS142", gzip.compress(torch_zip(), mtime=0)),
        "gzip-names-its-payload.pt": ("OS112", gzip.compress(_PAYLOAD, mtime=0)),
        "gzip-in-xz.pt": ("OS112", lzma.compress(gzip.compress(_PAYLOAD, mtime=0))),
        "five-times.pt": ("OS111", zlib.compress(zlib.compress(zlib.compress(zlib.compress(zlib.compress(_PAYLOAD)))))),
        "bomb-of-zeros.pt": ("OS144", bz2.compress(bytes(70 * 2**20))),
        "7z.pt": ("OS143", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24) + _PAYLOAD),
        "7z.bin": ("OS143", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24) + _PAYLOAD),
        "tar.pt": ("OS143", _tar(tarfile.PAX_FORMAT)),
        "gnu-tar.pth.tar": ("OS143", _tar(tarfile.GNU_FORMAT)),
        "old-tar.pt": ("OS143", bytes(old_tar)),
        "rar.pt": ("OS143", b"Rar!\x1a\x07\x01\x00" + _PAYLOAD),
    }
    for title, (code, data) in packed.items():
        yield HostileFile(FAMILIES[3], title, data, code, "one-tensor.pt" if "checkpoint" in title else None)
    for suffix in ("safetensors", "onnx", "json", "npy", "npz", "h5", "gguf", "tflite", "txt", "py"):
        yield HostileFile(FAMILIES[3], f"pickle.{suffix}", _PAYLOAD, "OS110", "ordered.pkl")
    yield HostileFile(FAMILIES[3], "text-pickle.json", b"cos\ngetcwd\n(tR.", "OS110")
    yield HostileFile(FAMILIES[3], "checkpoint.safetensors", torch_zip(), "OS110", "one-tensor.pt")
    yield HostileFile(FAMILIES[3], "archive.npz", torch_zip(_PAYLOAD), "OS110")


def foreign() -> Iterator[HostileFile]:
    """Formats that are not examined, NumPy arrays with something wrong, and torch's old layout."""
    onnx = b"\x08\x09\x3a\x2b" + b"\x2a\x29\x0a\x08location\x12\x1d../../../../../../etc/hostname"
    keras = Part("config.json", b'{"class_name": "Lambda", "config": {"function": "4wEA"}}')
    joblib = PROTO2 + name("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}b" + bytes(16) + STOP
    objects = npy("'|O'", data=_PAYLOAD)
    files = {
        "lambda.h5": ("OS101", b"\x89HDF\r\n\x1a\n" + bytes(56) + b"Lambda"),
        "lambda.keras": ("OS101", pack([keras, Part("metadata.json", b"{}")])),
        "pickle-in.keras": ("OS112", pack([keras, Part("assets/kit.pkl", _PAYLOAD)])),
        "template.gguf": ("OS101", b"GGUF\x03\x00\x00\x00" + bytes(16) + b"tokenizer.chat_template {{ cycler }}"),
        "graph.tflite": ("OS101", b"\x1c\x00\x00\x00TFL3" + bytes(24)),
        "external.onnx": ("OS101", onnx),
        "text.pt": ("OS101", b"these are no weights\n"),
        "empty.pt": ("OS101", b""),
        "other.zip": ("OS101", pack([Part("readme.txt", b"kit")])),
        "pickle-in.zip": ("OS112", pack([Part("readme.txt", _PAYLOAD)])),
        "uncompressed.joblib": ("OS112", joblib),
        "objects.npy": ("OS149", objects),
        "fields-of-objects.npy": ("OS149", npy("[('a', '<f4'), ('b', '|O')]", data=_PAYLOAD)),
        "objects.npz": ("OS149", pack([Part("x.npy", objects)])),
        "objects-packed.npz": ("OS149", pack([Part("x.npy", objects, method=8)])),
        "code.npy": ("OS128", npy("__import__('os').getcwd()")),
        "version-9.npy": ("OS128", b"\x93NUMPY\x09\x00" + npy("'<f4'")[8:]),
        "header-too-long.npy": ("OS128", b"\x93NUMPY\x02\x00\xff\xff\xff\x00" + bytes(64)),
        "too-short.npy": ("OS124", npy("'<f4'", "(2000000,)")),
        "too-long.npy": ("OS124", npy("'<f4'", data=bytes(8) + _PAYLOAD)),
        "strange-member.npz": ("OS101", pack([Part("x.npy", npy("'<f4'")), Part("kit.txt", b"kit")])),
        "pickle-member.npz": ("OS128", pack([Part("x.npy", _PAYLOAD)])),
        "zip-behind-an-array.npy": ("OS130", npy("'<f4'") + torch_zip(_PAYLOAD)),
    }
    for title, (code, data) in files.items():
        twin = {"npy": "hand.npy", "npz": "hand.npz"}.get(title.rpartition(".")[2])
        yield HostileFile(FAMILIES[4], title, data, code, twin)
    payload = PROTO2 + b"}" + name("os", "getcwd") + b")RK\x01s."
    old = {
        "payload": ("OS112", old_layout(payload)),
        "payload-in-the-system": (
            "OS112",
            old_layout(system=SYSTEM[:-1] + push("kit") + name("os", "getcwd") + b")Ru"),
        ),
        "pickle-behind": ("OS123", old_layout(end=_PAYLOAD)),
        "bytes-behind": ("OS122", old_layout(end=b"\xffkit")),
        "other-keys": ("OS126", old_layout(keys=("8",))),
        "keys-of-numbers": ("OS126", old_layout(keys=(7,))),
        "cut-off": ("OS124", old_layout(values=struct.pack("<q", 4) + WEIGHTS[:-1])),
        "other-count": ("OS124", old_layout(values=struct.pack("<q", 2**40) + WEIGHTS)),
        "ends-early": ("OS120", old_layout()[:60]),
        "new-storage": ("OS116", old_layout(state(tensor()))),
        "tensor-too-long": ("OS124", old_layout(state(tensor(old_storage(), shape=(5,))))),
    }
    for title, (code, data) in old.items():
        yield HostileFile(FAMILIES[4], f"old-{title}.pth", data, code, "old-layout.pth")


def headers() -> Iterator[HostileFile]:
    """Safetensors files with something wrong in their header."""
    later = {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}
    twice = b'{"w": %s, "w": %s}'
    entry = b'{"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}'
    files = {
        "overlap": ("OS148", safetensors({"w": _ENTRY, "v": later}, bytes(24))),
        "hole": ("OS148", safetensors({"w": later}, bytes(24))),
        "bytes-behind": ("OS148", safetensors({"w": _ENTRY}, bytes(17))),
        "pickle-behind": ("OS148", safetensors({"w": _ENTRY}, WEIGHTS + _PAYLOAD)),
        "cut-off": ("OS148", safetensors({"w": _ENTRY}, bytes(15))),
        "same-name-twice": ("OS146", safetensors(twice % (entry, entry), WEIGHTS)),
        "escaped-name-twice": ("OS146", safetensors(b'{"w": %s, "\\u0077": %s}' % (entry, entry), WEIGHTS)),
        "field-twice": (
            "OS146",
            safetensors(b'{"w": {"dtype": "F32", "dtype": "I32", "shape": [4], "data_offsets": [0, 16]}}', WEIGHTS),
        ),
        "metadata-twice": ("OS146", safetensors(b'{"__metadata__": {}, "__metadata__": {"a": "b"}}')),
        "giant-header": ("OS145", safetensors({"w": _ENTRY}, WEIGHTS, 2**60 & 0xFFFFFFFFFF)),
        "header-beyond-the-end": ("OS145", safetensors({"w": _ENTRY}, WEIGHTS, 1000)),
        "header-cut-off": ("OS145", safetensors({"w": _ENTRY}, WEIGHTS, 20)),
        "deep": ("OS145", safetensors(b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
        "no-json": ("OS145", safetensors(b"{'w': 1}")),
        "not-a-number": ("OS145", safetensors(b'{"w": NaN}')),
        "metadata-of-numbers": ("OS145", safetensors({"__metadata__": {"a": 1}})),
        "metadata-list": ("OS145", safetensors({"__metadata__": ["a"]})),
        "half-a-character": ("OS145", safetensors(b'{"__metadata__": {"a": "\\ud800"}}')),
        "newline-behind-the-header": ("OS145", safetensors(b"{}\n")),
        "giant-sizes": ("OS147", safetensors({"w": {**_ENTRY, "shape": [2**40, 2**40]}}, WEIGHTS)),
        "overflow-to-the-right-size": ("OS147", safetensors({"w": {**_ENTRY, "shape": [2**62 + 1, 4]}}, WEIGHTS)),
        "empty-giant": ("OS147", safetensors({"w": {"dtype": "F32", "shape": [0, 2**40], "data_offsets": [0, 0]}})),
        "unknown-type": ("OS147", safetensors({"w": {**_ENTRY, "dtype": "PICKLE"}}, WEIGHTS)),
        "type-of-a-list": ("OS147", safetensors({"w": {**_ENTRY, "dtype": ["F32"]}}, WEIGHTS)),
        "wrong-length": ("OS147", safetensors({"w": {**_ENTRY, "shape": [3]}}, WEIGHTS)),
        "part-of-a-byte": ("OS147", safetensors({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"k")),
        "negative-size": ("OS147", safetensors({"w": {**_ENTRY, "shape": [-4]}}, WEIGHTS)),
        "size-of-truth": ("OS147", safetensors({"w": {**_ENTRY, "shape": [True, 4]}}, WEIGHTS)),
        "broken-size": ("OS147", safetensors({"w": {**_ENTRY, "shape": [4.0]}}, WEIGHTS)),
        "long-number": (
            "OS147",
            safetensors(b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}', WEIGHTS),
        ),
        "offsets-backwards": ("OS147", safetensors({"w": {**_ENTRY, "data_offsets": [16, 0]}}, WEIGHTS)),
        "one-offset": ("OS147", safetensors({"w": {**_ENTRY, "data_offsets": [16]}}, WEIGHTS)),
        "unknown-field": ("OS147", safetensors({"w": {**_ENTRY, "code": "print('kit')"}}, WEIGHTS)),
        "many-dimensions": ("OS147", safetensors({"w": {**_ENTRY, "shape": [1] * 40 + [4]}}, WEIGHTS)),
        "entry-of-text": ("OS147", safetensors({"w": "kit"}, WEIGHTS)),
        "long-name": ("OS147", safetensors({"w" * 5000: _ENTRY}, WEIGHTS)),
        "zip-in-the-last-tensor": ("OS130", _with_zip()),
    }
    for title, (code, data) in files.items():
        yield HostileFile(FAMILIES[5], f"{title}.safetensors", data, code, "hand.safetensors")


def _with_zip() -> bytes:
    """Well-formed safetensors whose last tensor is a whole zip archive."""
    inner = torch_zip(_PAYLOAD)
    return safetensors({"w": {"dtype": "U8", "shape": [len(inner)], "data_offsets": [0, len(inner)]}}, inner)
