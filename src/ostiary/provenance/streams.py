"""Pickles that are files of their own: plain ones, and torch's layout from before 2020."""

import struct
from itertools import islice

from ostiary.provenance.allowed import STORAGES
from ostiary.provenance.machine import MAX_OPCODES, Machine, Read
from ostiary.provenance.opcodes import Broken, steps
from ostiary.provenance.refusal import Reason

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
_KEYS = 1_000_000
_TELLING = ("STOP", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ")


def is_pickle(data: memoryview, *, whole: bool = False) -> bool:
    """Whether the bytes are opcodes up to a STOP or to a call, as text pickles without a mark of protocol are.

    With `whole` they must be a pickle from the first to the last byte, and name something.
    """
    if whole:
        read = Machine(data, 0, "").run()
        sound = not any(reason.code == "OS120" for reason in read.reasons)
        return read.whole and sound and read.end == len(data) and bool(read.globals)
    try:
        return any(name in _TELLING for name, *_ in islice(steps(data, 0), MAX_OPCODES))
    except Broken:
        return False


def read_pickle(data: memoryview, subject: str) -> tuple[str, list[str], list[Reason]]:
    """Format, names and reasons of a file that begins with a pickle."""
    first = Machine(data, 0, subject).run()
    if first.value == TORCH_MAGIC and first.whole and not first.reasons:
        names, reasons = _legacy(data, first.end, subject)
        return "torch (old layout)", names, reasons
    return "pickle", first.globals, [*first.reasons, *after(data, first, subject)]


def after(data: memoryview, read: Read, subject: str) -> list[Reason]:
    """The reasons for what follows a whole pickle: another one with its own reasons, or other bytes."""
    left = len(data) - read.end
    if not read.whole or not left:
        return []
    second = Machine(data, read.end, subject).run()
    if second.whole:
        return [Reason("OS123", subject, f"a second pickle begins at byte {read.end}"), *second.reasons]
    return [Reason("OS122", subject, f"{left} bytes follow the end at byte {read.end}"), *_names_of(second)]


def _names_of(broken: Read) -> list[Reason]:
    """What a stream named before it broke; the break itself is no reason where it need not have been a pickle."""
    return [reason for reason in broken.reasons if reason.code in ("OS112", "OS113", "OS114", "OS115")]


def _legacy(data: memoryview, at: int, subject: str) -> tuple[list[str], list[Reason]]:
    """Names and reasons of the old layout: magic number, protocol, system, object, keys, then the values by key."""
    protocol = Machine(data, at, subject).run()
    if protocol.reasons or protocol.value != TORCH_PROTOCOL:
        return protocol.globals, protocol.reasons or [Reason("OS126", subject, "no protocol 1001 behind the magic")]
    system = Machine(data, protocol.end, subject).run()
    if not system.whole:
        return system.globals, system.reasons
    whole = Machine(data, system.end, subject, "legacy").run()
    names, reasons = [*system.globals, *whole.globals], [*system.reasons, *whole.reasons]
    if not whole.whole:
        return names, reasons
    keys = Machine(data, whole.end, subject).run()
    names, reasons = [*names, *keys.globals], [*reasons, *keys.reasons]
    if keys.whole:
        reasons += _values(data, whole, keys, subject)
    return names, reasons


def _values(data: memoryview, whole: Read, keys: Read, subject: str) -> list[Reason]:
    """The storages in the order of their keys: a count of eight bytes, then the values."""
    order = _strings(data, whole.end)
    if order is None or sorted(order) != sorted(whole.storages):
        return [Reason("OS126", subject, "the list of keys is not that of the storages")]
    at = keys.end
    for key in order:
        storage = whole.storages[key]
        if len(data) - at < 8 or struct.unpack_from("<q", data, at) != (storage.numel,):
            return [Reason("OS124", subject, f"storage {key} has not the {storage.numel} values that the object says")]
        at += 8 + storage.numel * STORAGES[storage.kind]
    if at > len(data):
        return [Reason("OS124", subject, f"{at - len(data)} bytes of the values are missing")]
    return _trailing(data, at, subject)


def _trailing(data: memoryview, at: int, subject: str) -> list[Reason]:
    if at == len(data):
        return []
    last = Read(end=at, whole=True)
    return after(data, last, subject)


def _strings(data: memoryview, start: int) -> list[str] | None:
    """The texts of a pickled list of texts; None for any other pickle."""
    found: list[str] = []
    plain = {"PROTO", "FRAME", "EMPTY_LIST", "MARK", "APPENDS", "APPEND", "STOP", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
    for name, _, argument, _, _ in steps(data, start):
        if name in ("BINUNICODE", "SHORT_BINUNICODE") and isinstance(argument, str):
            found.append(argument)
        elif name not in plain:
            return None
        if len(found) > _KEYS:
            return None
    return found
