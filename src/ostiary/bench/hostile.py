"""The hostile-file kit: files that must be refused, each for one reason, beside their twins that must not.

All payloads are harmless: they print, look at the working directory, run `true` or touch the file that is named as
canary. The files are made when they are asked for; nothing is kept. The kit serves as a conformance test of any
scanner.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FAMILIES = ("gadget pickles", "streams", "archives", "compressed and disguised", "other formats", "safetensors")


@dataclass(frozen=True, slots=True)
class HostileFile:
    """One file that must be refused: its family, its name, its bytes, the code of the reason, and the benign twin."""

    family: str
    name: str
    data: bytes
    code: str
    twin: str | None = None


@dataclass(frozen=True, slots=True)
class BenignFile:
    """One file that must pass; `converts` says that it holds a state dict which can be written as safetensors."""

    name: str
    data: bytes
    converts: bool


def hostile_files(canary: Path) -> Iterator[HostileFile]:
    """All hostile files of the kit; what runs one of some of them creates `canary`."""
    from ostiary.bench import hostile_archives, hostile_other, hostile_pickles

    yield from hostile_pickles.gadgets(canary)
    yield from hostile_pickles.streams()
    yield from hostile_archives.archives(canary)
    yield from hostile_other.wrapped(canary)
    yield from hostile_other.foreign()
    yield from hostile_other.headers()


def benign_files() -> Iterator[BenignFile]:
    """All benign files of the kit, the twins of the hostile ones among them."""
    from ostiary.bench import hostile_benign

    yield from hostile_benign.saved()
    yield from hostile_benign.twins()
