"""The opcodes of a pickle, one by one, read with bounds and never run.

The format is that of Python's own `pickletools`, whose table of opcodes is used. Arguments are read more strictly than
unpicklers read them: a number with a blank or an underscore in it, a line without its end, or a length beyond the data
breaks the stream.
"""

import pickletools
import re
import struct
from collections.abc import Callable, Iterator

from ostiary.provenance.refusal import Reason

MAX_LINE = 1 << 16
MAX_LONG = 1 << 10
NEWEST = 5

Buffer = bytes | memoryview


class Broken(Exception):
    """The bytes stop being a pickle: `code` and `message` of the reason, and where."""

    def __init__(self, code: str, message: str, at: int) -> None:
        super().__init__(message)
        self.code = code
        self.at = at

    def reason(self, subject: str) -> Reason:
        """The reason to refuse `subject` for."""
        return Reason(self.code, subject, f"{self} at byte {self.at}")


class Opaque:
    """A value that is in the stream but of no use to the inspection; `size` in bytes."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


# One opcode: its name, the protocol it came with, its argument, where it stands and where the next one does.
Step = tuple[str, int, object, int, int]


def _decimal(text: bytes, at: int) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,300}", text):
        raise Broken("OS120", f"{text[:20]!r} is no number", at)
    return int(text)


def _line(data: Buffer, start: int) -> tuple[bytes, int]:
    for most in (256, MAX_LINE):  # nearly all lines are short
        piece = bytes(data[start : start + most])
        length = piece.find(b"\n")
        if length >= 0:
            return piece[:length], start + length + 1
    raise Broken("OS120", "a line does not end", start)


def _text_line(kind: str, data: Buffer, start: int) -> tuple[object, int]:
    text, end = _line(data, start)
    if kind == "decimalnl_short":
        value: object = _decimal(text, start) if text not in (b"00", b"01") else text == b"01"
    elif kind == "decimalnl_long":
        value = _decimal(text.removesuffix(b"L"), start)
    elif kind == "floatnl":
        if not re.fullmatch(rb"[-+0-9.eEinfa]{1,32}", text):
            raise Broken("OS120", "no number", start)
        value = Opaque(8)
    elif kind == "stringnl_noescape_pair":
        second, end = _line(data, end)
        value = (_utf8(text, start), _utf8(second, start))
    elif kind == "stringnl_noescape":
        value = _utf8(text, start)
    else:
        # Quoted or escaped text: what is plain is known, the rest is not needed.
        quoted = len(text) > 1 and text[:1] == text[-1:] and text[:1] in (b"'", b'"')
        if kind == "stringnl" and not quoted:
            raise Broken("OS120", "a text without its quotes", start)
        plain = text[1:-1] if quoted else text
        value = plain.decode("ascii") if plain.isascii() and b"\\" not in plain else Opaque(len(plain))
    return value, end


def _utf8(text: bytes, at: int) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Broken("OS120", "text that is not UTF-8", at) from None


_FIXED = {"uint1": "<B", "uint2": "<H", "int4": "<i", "uint4": "<I", "uint8": "<Q", "float8": ">d"}
_LENGTHS = {"1": "<B", "4": "<I", "8": "<Q"}


def _counted(kind: str, data: Buffer, start: int) -> tuple[object, int]:
    """An argument with its length in front of it: text, bytes or a long number."""
    form = "<i" if kind in ("string4", "long4") else _LENGTHS[kind[-1]]
    begin = start + struct.calcsize(form)
    (length,) = struct.unpack_from(form, data, start)
    if length < 0 or length > len(data) - begin:
        raise Broken("OS120", f"an argument of {length} bytes is longer than the data", start)
    end = begin + length
    piece = data[begin:end]
    if kind.startswith("long"):
        if length > MAX_LONG:
            raise Broken("OS111", f"a number of {length} bytes", start)
        return int.from_bytes(piece, "little", signed=True), end
    if kind.startswith("unicode"):
        if length > MAX_LINE:
            return Opaque(length), end
        return str(piece, "utf-8", "surrogatepass"), end
    # Bytes stay what they are where they are short, for they may be a code or a name.
    return (bytes(piece) if length <= MAX_LINE else Opaque(length)), end


def _argument(kind: str) -> Callable[[Buffer, int], tuple[object, int]]:
    """The reader of one kind of argument, as `pickletools` names them."""
    if kind in _FIXED:
        form = struct.Struct(_FIXED[kind])
        return lambda data, start: (form.unpack_from(data, start)[0], start + form.size)
    if "nl" in kind:
        return lambda data, start: _text_line(kind, data, start)
    return lambda data, start: _counted(kind, data, start)


_TABLE = {
    ord(one.code): (one.name, one.proto, None if one.arg is None else _argument(one.arg.name))
    for one in pickletools.opcodes
}


def steps(data: Buffer, start: int) -> Iterator[Step]:
    """Every opcode of the pickle that begins at `start`, up to and with its STOP.

    Raises Broken where the bytes stop being a pickle.
    """
    at = start
    while True:
        if at >= len(data):
            raise Broken("OS120", "the stream ends before STOP", at)
        entry = _TABLE.get(data[at])
        if entry is None:
            raise Broken("OS120", f"0x{data[at]:02x} is no opcode", at)
        name, protocol, read = entry
        argument, end = None, at + 1
        if read is not None:
            try:
                argument, end = read(data, end)
            except (struct.error, UnicodeDecodeError):
                raise Broken("OS120", f"the argument of {name} is cut off or ill-formed", at) from None
        yield name, protocol, argument, at, end
        if name == "STOP":
            return
        at = end
