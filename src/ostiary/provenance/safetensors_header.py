"""The header of a safetensors file, read strictly and on its own.

The format is that of https://github.com/huggingface/safetensors#format: eight bytes of length, a JSON object, and the
bytes of the tensors, which must tile the rest of the file. Stricter than the format asks: bounds on the header, on the
number of tensors and on sizes, no key twice at any depth, no unknown field in an entry, and no empty tensor of giant
dimensions.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostiary.provenance.refusal import Reason, Refused

MAX_HEADER = 100_000_000
MAX_TENSORS = 1_000_000
MAX_DIMS = 32
MAX_VALUES = 2**48
MAX_EMPTY = 2**32
MAX_NAME = 4096

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one value of each number type."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its number type, its shape, and where its bytes begin and end in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name, in the order of the header, and its metadata."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


class _Ill(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_header(data: bytes | bytearray | memoryview, subject: str = "safetensors") -> Header:
    """The header of the safetensors file whose whole bytes are `data`; `subject` is named in the reason.

    Raises Refused with the first thing that is wrong.
    """
    try:
        return _read(memoryview(data).cast("B"))
    except _Ill as ill:
        raise Refused([Reason(ill.code, subject, str(ill))]) from None


def _read(view: memoryview) -> Header:
    if len(view) < 8:
        raise _Ill("OS145", "shorter than the length of a header")
    length = int.from_bytes(view[:8], "little")
    if length > min(MAX_HEADER, len(view) - 8):
        raise _Ill("OS145", f"a header of {length} bytes in a file of {len(view)}, where {MAX_HEADER} are allowed")
    base = 8 + length
    raw = bytes(view[8:base])
    if not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        raise _Ill("OS145", "the header is no JSON object")
    found = _parse(raw)
    metadata = _metadata(found.pop("__metadata__", {}))
    if len(found) > MAX_TENSORS:
        raise _Ill("OS111", f"{len(found)} tensors, more than {MAX_TENSORS}")
    tensors = {name: _entry(name, value, base) for name, value in found.items()}
    _tile(tensors, base, len(view))
    return Header(tensors, metadata)


def _parse(raw: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _Ill("OS146", f"the key {_shown(key)} stands twice")
            found[key] = value
        return found

    try:
        # Whole numbers of more than 20 digits are no sizes, and turning them into numbers takes long.
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=once, parse_constant=_no, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise _Ill("OS145", f"the header is no JSON: {str(error)[:80]}") from None
    if not isinstance(found, dict):
        raise _Ill("OS145", "the header is no JSON object")
    return found


def _no(text: str) -> Any:
    raise _Ill("OS145", f"the header is no JSON: {text}")


def _whole(text: str) -> int:
    if len(text) > 20:
        raise _Ill("OS147", "a number of more than 20 digits")
    return int(text)


def _shown(name: str) -> str:
    return ascii(name)[:80]


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _Ill("OS145", "metadata that is no text")
    _encodable([*value, *value.values()])
    return value


def _encodable(texts: list[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Ill("OS145", f"text that is no Unicode: {_shown(text)}") from None


def _entry(name: str, value: Any, base: int) -> Entry:
    _encodable([name])
    where = f"tensor {_shown(name)}"
    if len(name) > MAX_NAME:
        raise _Ill("OS147", f"a name of {len(name)} characters")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _Ill("OS147", f"{where} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Ill("OS147", f"{where} is of the unknown type {ascii(dtype)[:40]}")
    if not _sizes(shape) or len(shape) > MAX_DIMS:
        raise _Ill("OS147", f"{where} has a shape that is no list of at most {MAX_DIMS} sizes")
    if not _sizes(offsets) or len(offsets) != 2:
        raise _Ill("OS147", f"{where} has offsets that are no two positions")
    values = math.prod(shape)
    if values > MAX_VALUES or (values == 0 and math.prod(n for n in shape if n) > MAX_EMPTY):
        raise _Ill("OS147", f"{where} has sizes beyond the limit")
    begin, end = offsets
    if values * BITS[dtype] != (end - begin) * 8:
        raise _Ill("OS147", f"{where} has {end - begin} bytes for {values} values of {dtype}")
    return Entry(dtype, tuple(shape), base + begin, base + end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one <= MAX_VALUES for one in value)


def _tile(tensors: dict[str, Entry], at: int, size: int) -> None:
    key: Callable[[tuple[str, Entry]], tuple[int, int]] = lambda item: (item[1].begin, item[1].end)  # noqa: E731
    for name, entry in sorted(tensors.items(), key=key):
        if entry.begin != at:
            what = "overlaps another" if entry.begin < at else f"leaves {entry.begin - at} bytes before it to none"
            raise _Ill("OS148", f"tensor {_shown(name)} {what}")
        at = entry.end
    if at != size:
        raise _Ill("OS148", f"the tensors end at byte {at} of {size}")
