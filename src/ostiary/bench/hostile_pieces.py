"""Pieces of which the files of the hostile kit are put together by hand: opcodes, zip archives, safetensors.

Nothing is pickled here and nothing unpickled: streams are written opcode by opcode, so that each has one known defect.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

STOP = b"."
PROTO2, PROTO4 = b"\x80\x02", b"\x80\x04"


def text(value: str) -> bytes:
    """Push a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def push(value: Any) -> bytes:
    """Push a plain value: text, bytes (protocol 3), a number, a truth value, None, a tuple, a list or a dict."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, tuple):
        return b"(" + b"".join(map(push, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(push, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(push(key) + push(one) for key, one in value.items()) + b"u"
    if isinstance(value, Raw):
        return value.stream
    raise TypeError(type(value).__name__)


@dataclass(frozen=True, slots=True)
class Raw:
    """Opcodes that push one object, to stand among plain values."""

    stream: bytes


def name(module: str, attribute: str) -> bytes:
    """Push a function or class by its name."""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """Push a function or class by two texts on the stack (protocol 4)."""
    return text(module) + text(attribute) + b"\x93"


def call(module: str, attribute: str, *args: Any) -> bytes:
    """Push what a function gives."""
    return name(module, attribute) + push(args) + b"R"


ORDERED = call("collections", "OrderedDict")


def storage(key: str = "0", numel: Any = 4, kind: str = "FloatStorage") -> bytes:
    """Push a storage of a torch archive."""
    return push(("storage", Raw(name("torch", kind)), key, "cpu", numel)) + b"Q"


def tensor(stored: bytes | None = None, offset: Any = 0, shape: Any = (4,), strides: Any = (1,)) -> bytes:
    """Push a tensor."""
    own = Raw(storage() if stored is None else stored)
    return call("torch._utils", "_rebuild_tensor_v2", own, offset, shape, strides, False, Raw(ORDERED))


def state(*tensors: bytes) -> bytes:
    """The whole stream of a state dict of some tensors, `w0` the first of them."""
    items = b"".join(text(f"w{at}") + one for at, one in enumerate(tensors))
    return PROTO2 + ORDERED + b"(" + items + b"u" + STOP


WEIGHTS = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True)
class Part:
    """One member of an archive, and what in it is to be wrong: None or an empty value is what is right."""

    name: str
    data: bytes
    listed: str | None = None
    flags: int = 0
    local_flags: int | None = None
    method: int = 0
    local_method: int | None = None
    crc: int | None = None
    local_crc: int | None = None
    claimed: int | None = None
    local_size: int | None = None
    extra: bytes = b""
    before: bytes = b""
    hidden: bool = False
    comment: bytes = b""
    shift: int = 0


def torch_parts(stream: bytes, *storages: bytes) -> list[Part]:
    """The members that torch.save writes, for a pickled object and its storages."""
    own = [Part(f"m/data/{at}", one) for at, one in enumerate(storages or (WEIGHTS,))]
    return [Part("m/data.pkl", stream), Part("m/byteorder", b"little"), *own, Part("m/version", b"3\n")]


def pack(parts: Sequence[Part], *, prefix: bytes = b"", adjust: bool = False, comment: bytes = b"", end: bytes = b"",
         count: int | None = None, gap: bytes = b"") -> bytes:  # fmt: skip
    """A zip archive of the parts; bytes in front (`adjust` moves the offsets along), behind, or before the list."""
    body, listing = bytearray(prefix), bytearray()
    base = 0 if adjust else len(prefix)
    for part in parts:
        raw = part.data
        if part.method == 8:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            raw = packer.compress(part.data) + packer.flush()
        crc = zlib.crc32(part.data) if part.crc is None else part.crc
        size = len(part.data) if part.claimed is None else part.claimed
        body += part.before
        offset = len(body) - base + part.shift
        encoded = part.name.encode()
        body += b"PK\x03\x04" + struct.pack(
            "<HHHHHIIIHH",
            20,
            part.flags if part.local_flags is None else part.local_flags,
            part.method if part.local_method is None else part.local_method,
            0,
            33,
            crc if part.local_crc is None else part.local_crc,
            len(raw),
            size if part.local_size is None else part.local_size,
            len(encoded),
            len(part.extra),
        )
        body += encoded + part.extra + raw
        if not part.hidden:
            shown = (part.listed or part.name).encode()
            fields = (20, 20, part.flags, part.method, 0, 33, crc, len(raw), size, len(shown), 0, len(part.comment))
            listing += b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", *fields, 0, 0, 0, offset)
            listing += shown + part.comment
    body += gap
    listed = sum(not part.hidden for part in parts) if count is None else count
    tail = struct.pack("<HHHHIIH", 0, 0, listed, listed, len(listing), len(body) - base, len(comment))
    return bytes(body + listing + b"PK\x05\x06" + tail + comment + end)


def torch_zip(stream: bytes | None = None, *storages: bytes, **how: Any) -> bytes:
    """A torch archive; of one state dict with one tensor where nothing is said."""
    return pack(torch_parts(state(tensor()) if stream is None else stream, *storages), **how)


def changed(at: int, **how: Any) -> bytes:
    """The torch archive of one tensor with something wrong in its member number `at`."""
    parts = torch_parts(state(tensor()))
    parts[at] = replace(parts[at], **how)
    return pack(parts)


MAGIC, OLD_PROTOCOL = push(0x1950A86A20F9469CFC6C), push(1001)
SYSTEM = push({"protocol_version": 1001, "little_endian": True})


def old_storage(key: str = "7", numel: int = 4) -> bytes:
    """Push a storage of torch's old layout."""
    return push(("storage", Raw(name("torch", "FloatStorage")), key, "cpu", numel, None)) + b"Q"


def old_layout(
    stream: bytes | None = None,
    keys: Any = ("7",),
    values: bytes | None = None,
    end: bytes = b"",
    system: bytes = SYSTEM,
) -> bytes:
    """A file in torch's layout from before 2020: five pickles, and the values of each storage with their count."""
    whole = state(tensor(old_storage())) if stream is None else stream
    pickles = [PROTO2 + one + STOP for one in (MAGIC, OLD_PROTOCOL, system)]
    tail = struct.pack("<q", 4) + WEIGHTS if values is None else values
    return b"".join([*pickles, whole, PROTO2 + push(list(keys)) + STOP, tail, end])


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a header, as an object or as its very bytes, and the bytes behind it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def npy(descr: str, shape: str = "(2,)", data: bytes = bytes(8)) -> bytes:
    """A NumPy array file."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
