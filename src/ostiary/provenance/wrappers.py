"""What kind of file some bytes are, by the bytes alone; and what is inside of a compressed one.

Suffixes say nothing here. A compressed file is unpacked up to a limit, so that what it hides is named; where this
Python cannot unpack a kind, the kind alone is known.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

MAX_UNPACKED = 64 * 2**20
_PIECE = 1 << 16
_MEMORY = 1 << 28

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x93NUMPY": "npy",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"]\x00\x00": "lzma",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"GGUF": "GGUF",
}
COMPRESSED = ("gzip", "xz", "lzma", "bz2", "zlib", "lz4", "zstd")
ARCHIVES = ("7z", "rar", "tar")


def kind_of(data: memoryview) -> str | None:
    """The kind of a file by its bytes: one of those above, `safetensors`, `TFLite`, `pickle`; None for others.

    `pickle` is said of every file that begins with the mark of protocol 2 or later; older pickles have none.
    """
    start = bytes(data[:512])
    if _is_safetensors(data):
        return "safetensors"  # first, for its first bytes are a length, which may read like any other mark
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if found is None and start[4:8] == b"TFL3":
        found = "TFLite"
    if found is None and _is_tar(start):
        found = "tar"
    if found is None and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 1 << 40:
        found = "safetensors"
    if found is None and re.match(rb"\x80[\x00-\x0f]", start):
        found = "pickle"
    if found is None and len(start) > 2 and start[0] & 15 == 8 and int.from_bytes(start[:2]) % 31 == 0:
        found = "zlib" if _is_zlib(data) else None
    return found


def unpack(kind: str, data: memoryview) -> bytes | None:
    """The first `MAX_UNPACKED` bytes inside of compressed ones, and one more where there are more.

    Empty for what is damaged; None for a kind that this Python cannot unpack.
    """
    makers: dict[str, Callable[[], Any]] = {
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": lambda: zlib.decompressobj(15),
        "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
        "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY),
        "bz2": bz2.BZ2Decompressor,
    }
    if kind not in makers:
        return None
    try:
        return bytes(makers[kind]().decompress(data, MAX_UNPACKED + 1))
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return b""


def _is_safetensors(data: memoryview) -> bool:
    end = 8 + int.from_bytes(data[:8], "little")
    return bytes(data[8:9]) == b"{" and end <= len(data) and bytes(data[end - 1 : end]) in (b"}", b" ")


def _is_tar(start: bytes) -> bool:
    """By the checksum of its first header, which every form of tar has."""
    if len(start) < 512:
        return False
    told = re.fullmatch(rb"[ 0]*([0-7]{1,7})[ \0]*", start[148:156])
    return told is not None and int(told[1], 8) == sum(start[:148]) + 8 * 32 + sum(start[156:]) and any(start)


def _is_zlib(data: memoryview) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(data[:_PIECE], 64))
    except zlib.error:
        return False
