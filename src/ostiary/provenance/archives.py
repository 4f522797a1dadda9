"""What is in a zip archive of weights: torch's and NumPy's members, each of the form that these write, and no other."""

import re
import zlib
from dataclasses import dataclass, field

from ostiary.provenance import zips
from ostiary.provenance.allowed import Storage
from ostiary.provenance.arrays import MAGIC, array_reasons
from ostiary.provenance.machine import Machine
from ostiary.provenance.refusal import Reason
from ostiary.provenance.streams import after

MAX_PICKLE = 256 * 2**20
MAX_REASONS = 50

# What torch.save writes beside the object and its storages, and what stands in it.
_SMALL = {
    "version": rb"[0-9]{1,4}\n?",
    "byteorder": rb"little|big",
    ".format_version": rb"[0-9]{1,4}",
    ".storage_alignment": rb"[0-9]{1,6}",
    ".data/serialization_id": rb"[0-9]{1,64}",
}


@dataclass(slots=True)
class Contents:
    """What an archive is, the names of its members, the names in its pickles, and the reasons to refuse it."""

    format: str
    members: list[str] = field(default_factory=list)
    globals: list[str] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def refuse(self, code: str, subject: str, message: str) -> None:
        """Keep one reason."""
        self.reasons.append(Reason(code, subject, message))


def read_archive(data: memoryview, subject: str) -> Contents:
    """Look at every member of a zip archive. Nothing is raised; what is wrong is among the reasons."""
    archive = zips.read_zip(data, subject)
    found = Contents("zip", [_shown(member.name) for member in archive.members], [], list(archive.reasons))
    if sum(member.size for member in archive.members) > zips.MAX_UNPACKED:
        found.refuse("OS144", subject, f"unpacks to more than {zips.MAX_UNPACKED} bytes")
        return found
    for member in archive.members:
        for code, message in zips.check(member):
            found.refuse(code, subject, f"{_shown(member.name)} {message}")
    names = [member.name for member in archive.members]
    roots = [name.removesuffix("data.pkl") for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if roots:
        _torch(archive.members, min(roots, key=len), subject, found)
    elif names and all(name.endswith(".npy") for name in names):
        _arrays(archive.members, subject, found)
    else:
        _other(archive.members, subject, found)
    return found


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:120]


def _torch(members: list[zips.Member], root: str, subject: str, found: Contents) -> None:
    found.format = "torch"
    inner = {member.name.removeprefix(root): member for member in members if member.name.startswith(root)}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        found.format = "TorchScript"
        found.refuse("OS138", subject, "a TorchScript archive, which holds code")
    if not root:
        found.refuse("OS137", subject, "data.pkl lies in no folder, where torch.save puts it in one")
    packed = [_shown(member.name) for member in members if member.method != zips.STORED]
    if packed:
        found.refuse("OS139", subject, f"{packed[0]} is compressed, and torch.save stores members as they are")
    storages = _pickle(inner["data.pkl"], subject, found, "zip")
    for member in members:
        inside = member.name.startswith(root)
        _torch_member(member, member.name.removeprefix(root) if inside else "", storages, subject, found)
    for key in storages:
        if f"data/{key}" not in inner:
            found.refuse("OS124", subject, f"storage {_shown(key)} is not in the archive")


def _torch_member(member: zips.Member, name: str, storages: dict[str, Storage], subject: str, found: Contents) -> None:
    """A member beside the object, called `name` within torch's folder: a storage, a mark of the format, or unknown."""
    if name in _SMALL:
        if member.size > 100 or not re.fullmatch(_SMALL[name], bytes(_unpacked(member))):
            found.refuse("OS137", subject, f"{_shown(member.name)} is not of the form that torch.save writes")
    elif re.fullmatch(r"data/[0-9]{1,20}", name):
        _storage(member, storages.get(name.removeprefix("data/")), subject, found)
    elif name != "data.pkl":
        found.refuse("OS137", subject, f"{_shown(member.name)} is no member that torch.save writes")
        _hidden(member, subject, found)


def _storage(member: zips.Member, storage: Storage | None, subject: str, found: Contents) -> None:
    """A member with the values of a storage: of the size that the object says, and no pickle."""
    if storage is None:
        found.refuse("OS137", subject, f"no tensor refers to {_shown(member.name)}")
    elif storage.numel * storage.width != member.size:
        claimed = storage.numel * storage.width
        found.refuse("OS124", subject, f"{_shown(member.name)} has {member.size} bytes where {claimed} are claimed")
    _hidden(member, subject, found)


def _pickle(member: zips.Member, subject: str, found: Contents, storages: str) -> dict[str, Storage]:
    where = f"{subject}/{_shown(member.name)}"
    if member.size > MAX_PICKLE:
        found.refuse("OS111", where, f"a pickle of {member.size} bytes, more than {MAX_PICKLE}")
        return {}
    data = memoryview(_unpacked(member))
    read = Machine(data, 0, where, storages).run()
    found.globals += [name for name in read.globals if name not in found.globals]
    found.reasons += [*read.reasons, *after(data, read, where)]
    return read.storages


def _unpacked(member: zips.Member) -> bytes | memoryview:
    try:
        return member.unpack(min(member.size, MAX_PICKLE))
    except zlib.error:
        return b""


def _hidden(member: zips.Member, subject: str, found: Contents) -> None:
    """A member that need not be a pickle and is one, from its mark to a STOP; or a name that says so."""
    if member.size > MAX_PICKLE or len(found.reasons) >= MAX_REASONS:
        return  # refused for enough already, where pickles without end would take time without end
    data = memoryview(_unpacked(member))
    marked = len(data) > 3 and data[0] == 0x80 and data[1] <= 5
    if not marked and not member.name.endswith((".pkl", ".pickle")):
        return
    read = Machine(data, 0, f"{subject}/{_shown(member.name)}").run()
    if read.whole or read.reasons[-1].code == "OS111":
        found.refuse("OS137", subject, f"{_shown(member.name)} is a pickle")
        found.globals += [name for name in read.globals if name not in found.globals]
        found.reasons += read.reasons


def _arrays(members: list[zips.Member], subject: str, found: Contents) -> None:
    found.format = "npz"
    for member in members:
        where = f"{subject}/{_shown(member.name)}"
        if member.method == zips.STORED:
            found.reasons += array_reasons(member.packed, where)
        elif member.size > MAX_PICKLE:
            found.refuse("OS111", where, f"unpacks to {member.size} bytes, more than {MAX_PICKLE}")
        else:
            found.reasons += array_reasons(memoryview(_unpacked(member)), where)


def _other(members: list[zips.Member], subject: str, found: Contents) -> None:
    found.refuse("OS101", subject, "not examined: a zip archive without torch or NumPy weights")
    for member in members:
        if not member.name.endswith(".npy"):
            _hidden(member, subject, found)
        elif bytes(_unpacked(member)[:6]) == MAGIC:
            found.reasons += array_reasons(memoryview(_unpacked(member)), f"{subject}/{_shown(member.name)}")
