"""Zip archives read strictly: both accounts of every member, every byte accounted for, every checksum.

The format is that of PKWARE's APPNOTE.TXT. Programs differ in what they make of an archive whose parts disagree, so
nothing is forgiven here: a name that differs between the two headers, a gap, a prefix, a comment, an overlap, a wrong
checksum each is a reason to refuse it.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ostiary.provenance.refusal import Reason

MAX_MEMBERS = 65_536
MAX_UNPACKED = 20 * 2**30
STORED, DEFLATED = 0, 8

_END, _END64, _LOCATOR, _CENTRAL, _LOCAL, _AFTER = (
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x07\x08",
)
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DEFERRED = 1 << 0 | 1 << 6 | 1 << 13, 1 << 3
_FLAGS = _ENCRYPTED | _DEFERRED | 1 << 11 | 0b110
_ZIP64, _PADDING = 0x0001, 0x4246
_PIECE = 1 << 20

Refuse = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Member:
    """One member as the list of members describes it; `packed` are its bytes in the archive."""

    name: str
    method: int
    crc: int
    size: int
    packed: memoryview

    def unpack(self, limit: int) -> bytes | memoryview:
        """Its first bytes, at most `limit` of them. Raises zlib.error for what cannot be unpacked."""
        if self.method == STORED:
            return self.packed[:limit]
        return zlib.decompressobj(-15).decompress(self.packed, limit)


@dataclass(slots=True)
class Archive:
    """The members of an archive, and the reasons to refuse it."""

    members: list[Member] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)


class Damaged(Exception):
    """The list of members cannot be read: the code of the reason, and why."""

    def __init__(self, message: str, code: str = "OS141") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Entry:
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class _End:
    """Where the list of members begins and ends, what it counts, and by how much its offsets are short."""

    begin: int
    stop: int
    count: int
    shift: int


def read_zip(data: memoryview, subject: str) -> Archive:
    """The members of a zip archive. Everything that is wrong with it is among the reasons; nothing is raised."""
    archive = Archive()

    def refuse(code: str, message: str) -> None:
        archive.reasons.append(Reason(code, subject, message))

    try:
        end = _find_end(data, refuse)
        entries = _central(data, end, refuse)
        _names(entries, refuse)
        _lay_out(data, entries, end, archive, refuse)
    except Damaged as damaged:
        refuse(damaged.code, str(damaged))
    except struct.error:
        refuse("OS141", "a header is cut off")
    return archive


def check(member: Member) -> Iterator[tuple[str, str]]:
    """Codes and messages of what is wrong with the bytes of a member: their number, or their checksum."""
    if member.method == STORED:
        length, crc = len(member.packed), zlib.crc32(member.packed)
    else:
        try:
            length, crc = _unpacked(member)
        except zlib.error:
            yield "OS141", "cannot be unpacked"
            return
    if length != member.size:
        yield "OS144", f"has not the {member.size} bytes that it claims"
    elif crc != member.crc:
        yield "OS136", "has another checksum than it claims"


def _unpacked(member: Member) -> tuple[int, int]:
    """Length and checksum of an unpacked member, piece by piece, until it is longer than it claims."""
    unpacker, length, crc, rest = zlib.decompressobj(-15), 0, 0, bytes(member.packed)
    while length <= member.size:
        piece = unpacker.decompress(rest, _PIECE)
        if not piece:
            return length, crc
        length, crc, rest = length + len(piece), zlib.crc32(piece, crc), unpacker.unconsumed_tail
    return length, crc


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "replace"))[1:-1][:120]


def _find_end(data: memoryview, refuse: Refuse) -> _End:
    at = len(data) - 22
    if at < 0 or data[at : at + 4] != _END or bytes(data[at + 20 : at + 22]) != b"\0\0":
        tail = bytes(data[-(1 << 16) - 22 :])
        found = tail.rfind(_END)
        if found < 0 or len(tail) - found < 22:
            raise Damaged("no list of members at the end")
        at = len(data) - len(tail) + found
        refuse("OS135", f"{len(data) - at - 22} bytes follow the archive")
    disk, start_disk, here, count, size, offset, _ = struct.unpack_from("<HHHHIIH", data, at + 4)
    stop = at
    if at >= 20 and data[at - 20 : at - 16] == _LOCATOR:
        stop = at - 20 - 56
        if stop < 0 or data[stop : stop + 4] != _END64 or struct.unpack_from("<Q", data, stop + 4) != (44,):
            raise Damaged("the large form of the end is not where it should be")
        wide = struct.unpack_from("<IIQQQQ", data, stop + 16)
        pairs = zip((disk, start_disk, here, count, size, offset), wide, strict=True)
        if any(narrow not in (full, _FULL16, _FULL32) for narrow, full in pairs):
            refuse("OS131", "the two forms of the archive's end differ")
        disk, start_disk, here, count, size, offset = wide
    if disk or start_disk or here != count:
        raise Damaged("an archive in several parts")
    begin = stop - size
    if begin < 0 or begin < offset:
        raise Damaged("the list of members does not fit the file")
    if begin != offset:
        refuse("OS130", f"{begin - offset} bytes stand before the archive")
    return _End(begin, stop, count, begin - offset)


def _central(data: memoryview, end: _End, refuse: Refuse) -> list[_Entry]:
    if end.count > MAX_MEMBERS:
        raise Damaged(f"{end.count} members, more than {MAX_MEMBERS}", "OS111")
    entries, at = [], end.begin
    for _ in range(end.count):
        if data[at : at + 4] != _CENTRAL:
            raise Damaged("an entry of the list of members is no entry")
        fields = struct.unpack_from("<HHHHHHIIIHHHHHII", data, at + 4)
        flags, method, crc, packed, size = fields[2], fields[3], fields[6], fields[7], fields[8]
        lengths, disk, offset = fields[9:12], fields[12], fields[15]
        after = at + 46 + sum(lengths)
        if after > end.stop:
            raise Damaged("an entry of the list of members is cut off")
        name = bytes(data[at + 46 : at + 46 + lengths[0]])
        extra = bytes(data[at + 46 + lengths[0] : at + 46 + lengths[0] + lengths[1]])
        if lengths[2]:
            refuse("OS135", f"{_shown(name)} has a comment")
        if disk:
            raise Damaged("an archive in several parts")
        size, packed, offset = _widened(_extras(extra, name, refuse), (size, packed, offset))
        entries.append(_Entry(name, flags, method, crc, packed, size, offset + end.shift))
        at = after
    if at != end.stop:
        raise Damaged("the list of members has another length than it claims")
    return entries


def _extras(extra: bytes, name: bytes, refuse: Refuse) -> bytes | None:
    """The wide sizes among the extra fields; a field that neither torch nor NumPy writes is a reason."""
    at, wide = 0, None
    while at < len(extra):
        if len(extra) - at < 4:
            raise Damaged(f"the extra fields of {_shown(name)} are cut off")
        kind, length = struct.unpack_from("<HH", extra, at)
        value = extra[at + 4 : at + 4 + length]
        if len(value) != length:
            raise Damaged(f"the extra fields of {_shown(name)} are cut off")
        if kind == _ZIP64:
            wide = value
        elif kind != _PADDING or value.strip(b"Z"):
            refuse("OS132", f"{_shown(name)} has {length} bytes in an extra field of type 0x{kind:04x}")
        at += 4 + length
    return wide


def _widened(wide: bytes | None, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, each from the wide field where the narrow one is full."""
    values, at = list(narrow), 0
    for place, value in enumerate(narrow):
        if value == _FULL32:
            if wide is None or len(wide) < at + 8:
                raise Damaged("a large size is missing")
            (values[place],) = struct.unpack_from("<Q", wide, at)
            at += 8
    return values[0], values[1], values[2]


def _names(entries: list[_Entry], refuse: Refuse) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.raw_name.decode("utf-8", "replace")
        parts = name.split("/")
        leads_out = {"", ".", ".."} & set(parts) or parts[0].endswith(":")
        if leads_out or "\\" in name or "\ufffd" in name or not name.isprintable():
            refuse("OS140", f"a member is called {_shown(entry.raw_name)}")
        if name.casefold() in seen:
            refuse("OS133", f"{_shown(entry.raw_name)} is there twice")
        seen.add(name.casefold())


def _lay_out(data: memoryview, entries: list[_Entry], end: _End, archive: Archive, refuse: Refuse) -> None:
    """Walk the local headers in the order of their places; they must tile the file up to the list of members."""
    at = end.shift if entries else end.begin
    members = {}
    for entry in sorted(entries, key=lambda one: one.offset):
        if entry.offset != at:
            what = "are hidden" if entry.offset > at else "are shared with another member"
            code = "OS130" if at == end.shift and entry.offset > at else "OS132"
            refuse(code, f"{abs(entry.offset - at)} bytes before {_shown(entry.raw_name)} {what}")
        begin = _local(data, entry, refuse)
        stop = begin + entry.packed
        if stop > end.begin:
            raise Damaged(f"{_shown(entry.raw_name)} is longer than the archive")
        at = stop + _descriptor(data, entry, stop, refuse)
        name = entry.raw_name.decode("utf-8", "replace")
        members[entry] = Member(name, entry.method, entry.crc, entry.size, data[begin:stop])
    if at != end.begin:
        refuse("OS132", f"{end.begin - at} bytes after the last member belong to none")
    archive.members = [members[entry] for entry in entries]


def _local(data: memoryview, entry: _Entry, refuse: Refuse) -> int:
    """Compare the local header of a member with its entry in the list; gives where its bytes begin."""
    at, shown = entry.offset, _shown(entry.raw_name)
    if data[at : at + 4] != _LOCAL:
        raise Damaged(f"{shown} is not where the list of members says")
    _, flags, method, _, _, crc, packed, size, length, extra_length = struct.unpack_from("<HHHHHIIIHH", data, at + 4)
    begin: int = at + 30 + length + extra_length
    if begin > len(data):
        raise Damaged(f"{shown} is cut off")
    name = bytes(data[at + 30 : at + 30 + length])
    wide = _extras(bytes(data[at + 30 + length : begin]), name, refuse)
    size, packed, _ = _widened(wide, (size, packed, 0))
    deferred = bool(flags & _DEFERRED) and (crc, packed, size) == (0, 0, 0)
    for what, here, listed in (
        ("name", name, entry.raw_name),
        ("flags", flags, entry.flags),
        ("method", method, entry.method),
        ("checksum", crc, entry.crc if not deferred else 0),
        ("sizes", (packed, size), (entry.packed, entry.size) if not deferred else (0, 0)),
    ):
        if here != listed:
            refuse("OS131", f"the {what} of {shown} is another in its own header ({_plain(here)})")
    if (flags | entry.flags) & _ENCRYPTED:
        refuse("OS134", f"{shown} is marked as encrypted")
    if (flags | entry.flags) & ~_FLAGS:
        refuse("OS131", f"{shown} has flags of unknown meaning (0x{flags | entry.flags:04x})")
    if entry.method not in (STORED, DEFLATED) or (entry.method == STORED and entry.size != entry.packed):
        refuse("OS139", f"{shown} is packed by method {entry.method}")
    return begin


def _plain(value: object) -> str:
    return _shown(value) if isinstance(value, bytes) else str(value)


def _descriptor(data: memoryview, entry: _Entry, at: int, refuse: Refuse) -> int:
    """The length of the record behind a member whose header left out checksum and sizes; 0 where there is none."""
    if not entry.flags & _DEFERRED:
        return 0
    signed = 4 if data[at : at + 4] == _AFTER else 0
    for form in ("<III", "<IQQ"):
        if at + signed + struct.calcsize(form) <= len(data):
            found: tuple[int, ...] = struct.unpack_from(form, data, at + signed)
            if found == (entry.crc, entry.packed, entry.size):
                return signed + struct.calcsize(form)
    refuse("OS131", f"the record behind {_shown(entry.raw_name)} gives another checksum or size")
    return signed + 12
