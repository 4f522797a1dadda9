"""The header of a NumPy array file, read as text: number type, order, shape.

The format is that of `numpy.lib.format`, versions 1 to 3. The header is a Python literal of one fixed form, so it is
matched and not evaluated.
"""

import math
import re
import struct

from ostiary.provenance.refusal import Reason

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
_LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
_HEADER = re.compile(
    rb"\{'descr': '(?P<descr>[^']{1,40})', 'fortran_order': (?:True|False), "
    rb"'shape': \((?P<shape>(?:[0-9]{1,15}(?:, ?|,? ?(?=\))))*)\), \} *\n"
)
_PLAIN = re.compile(rb"[<>|=](?:[?bBhHiIlLqQefdgFDG]|[biufcSUVmM][0-9]{1,6}(?:\[[a-zA-Z0-9/]{1,12}\])?)")


def array_reasons(data: memoryview, subject: str) -> list[Reason]:
    """The reasons to refuse an array file: objects in it, an odd header, or values of another length than it says."""
    text = bytes(data[: MAX_HEADER + 16])
    form = _LENGTHS.get(text[6]) if len(text) > 12 else None
    if not text.startswith(MAGIC) or form is None or text[7]:
        return [Reason("OS128", subject, "no array of a version that is known")]
    (length,) = struct.unpack_from(form, text, 8)
    begin = 8 + struct.calcsize(form)
    if length > min(MAX_HEADER, len(data) - begin):
        return [Reason("OS128", subject, f"a header of {length} bytes")]
    header = text[begin : begin + length]
    if re.search(rb"'descr': *\[?.{0,200}'[<>|=]?O", header):
        return [Reason("OS149", subject, "an array of Python objects")]
    found = _HEADER.fullmatch(header)
    if found is None or not _PLAIN.fullmatch(found["descr"]):
        return [Reason("OS128", subject, f"the header {header[:80]!a} is not of the form that NumPy writes")]
    claimed = math.prod(int(one) for one in re.findall(rb"[0-9]+", found["shape"])) * _width(found["descr"])
    if claimed != len(data) - begin - length:
        left = len(data) - begin - length
        return [Reason("OS124", subject, f"the array claims {claimed} bytes and {left} follow its header")]
    return []


def _width(descr: bytes) -> int:
    """Bytes of one value; a character of text has 4."""
    count = re.match(rb".[a-zA-Z]([0-9]+)", descr)
    if descr[1:2] in (b"m", b"M"):
        return 8
    if count is None:
        return {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "e": 2, "i": 4, "I": 4, "f": 4}.get(chr(descr[1]), 8)
    return int(count[1]) * (4 if descr[1:2] == b"U" else 1)
