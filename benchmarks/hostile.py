"""The hostile-file kit against ostiary's inspection, torch's weights-only reader, and other scanners.

    make bench-hostile ARGS="--scanner picklescan=build/peers/picklescan/bin/picklescan"
    python -m benchmarks.hostile --scanner NAME=PROGRAM ... [--speed]

Every hostile file of the kit (`ostiary.bench.hostile`) must be refused and every benign one passed. The kit was written
by the same hands as the inspection and before its last changes, so that its figures for ostiary are in-sample: they say
that the inspection does what it was built for, not that nothing else gets past it. Its payloads are harmless, and many
of the files carry none but a defect by which readers come to differ, or a value that is out of place: a scanner that
looks for payloads alone has no reason to refuse these, and that torch reads such a file does not mean that it ran
anything (the canary is watched). `flagged` is a finding, `other` an error or a skip, both of which refuse here;
`passed` is what a user would take for a yes. torch refuses by not reading a file, and reads neither NumPy's nor plain
pickles' formats, so that its benign column counts checkpoints alone. Each scanner runs in its strictest form, one
process a file, from an environment of its own; modelaudit, which takes seconds to start, sees every twelfth file of
each family.

With --speed: seconds of the inspection of one checkpoint of 500 MB, in the page cache, beside reading its bytes once
for their checksums (CRC-32, which the inspection includes) and beside picklescan, where that was given, in turn.
"""

import argparse
import io
import mmap
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import Records, interleaved, note, parse, parser, spread, stop

from ostiary.bench.hostile import FAMILIES, BenignFile, HostileFile, benign_files, hostile_files
from ostiary.core.records import Rate
from ostiary.provenance.pickles import inspect_file
from ostiary.provenance.second_opinion import SCANNERS, ask

KIT, SPEED = "kit", "speed, checkpoint of 500 MB"
EVERY = {"modelaudit": 12}
REPEATS = 5
Judge = Callable[[Path], str]


def ours(path: Path) -> str:
    """The inspection's word."""
    return "flagged" if inspect_file(path).reasons else "passed"


def weights_only(path: Path) -> str:
    """torch's own reader: what it does not read, it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        except Exception:  # noqa: BLE001 - torch raises almost anything for what it does not read
            return "flagged"
    return "passed"


def opinion(scanner: str, program: str) -> Judge:
    """One of the other scanners."""
    return lambda path: ask(scanner, program, path).word


def every(files: list[Any], step: int) -> list[Any]:
    """Every file whose place within its family is a multiple of `step`."""
    places: Counter[str] = Counter()
    kept = []
    for one in files:
        family = getattr(one, "family", "benign")
        if places[family] % step == 0:
            kept.append(one)
        places[family] += 1
    return kept


def judge(folder: Path, bad: list[HostileFile], good: list[BenignFile], say: Judge) -> dict[str, Any]:
    """Words by family, what was passed that is hostile, and refused that is benign."""
    words: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    passed = []
    for one in bad:
        word = say(folder / one.name)
        words[one.family][word] += 1
        if word == "passed":
            passed.append(one.name)
    refused = [one.name for one in good if say(folder / one.name) != "passed"]
    total = Rate(k=len(bad) - len(passed), n=len(bad))
    figures: dict[str, Any] = {"hostile refused": total, "benign refused": Rate(k=len(refused), n=len(good))}
    for family, count in words.items():
        flagged, other = count["flagged"], count["error"] + count["skipped"]
        figures[family] = f"{flagged} flagged, {other} other, {count['passed']} passed"
    return {**figures, "hostile passed": passed[:40], "benign ones refused": refused}


def version(program: str) -> str:
    """The version of a scanner, by the name of its installed package beside the program."""
    name = Path(program).name
    found = sorted(Path(program).resolve().parents[1].glob(f"lib/python*/site-packages/{name}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").replace("-", " ") if found else f"{name}, version unknown"


def measure_kit(records: Records, scanners: dict[str, str], folder: Path) -> None:
    """One row for each reader of the kit."""
    bad, good = list(hostile_files(folder / "canary")), list(benign_files())
    for one in (*bad, *good):
        (folder / one.name).write_bytes(one.data)
    readers: dict[str, tuple[str, Judge]] = {
        "ostiary": ("ostiary", ours),
        "torch weights_only": (f"torch {torch.__version__}", weights_only),
        **{name: (version(program), opinion(name, program)) for name, program in scanners.items()},
    }
    for name, (label, say) in readers.items():
        if records.has(KIT, label):
            continue
        step = EVERY.get(name, 1)
        own_good = [one for one in good if one.converts] if name.startswith("torch") else good
        some, well = every(bad, step), every(own_good, step)
        note(f"{label}: {len(some)} hostile, {len(well)} benign")
        begun = time.monotonic()
        figures = judge(folder, some, well, say)
        if (folder / "canary").exists():
            stop(f"{label} ran a payload")
        records.add(KIT, label, figures, seeds=[], n=len(some) + len(well), seconds=time.monotonic() - begun)


def measure_speed(records: Records, scanners: dict[str, str], folder: Path) -> None:
    """Seconds of reading, of the inspection, and of picklescan, on the same file in turn."""
    if records.has(SPEED, "ostiary"):
        return
    path = folder / "large.pt"
    torch.save({f"layer {at}": torch.randn(1250, 1000) for at in range(100)}, path)

    def timed(work: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            begun = time.perf_counter()
            work()
            return time.perf_counter() - begun

        return run

    blocks = {"reading, CRC-32 alone": timed(lambda: _checksum(path)), "ostiary": timed(lambda: ours(path))}
    if program := scanners.get("picklescan"):
        blocks[version(program)] = timed(lambda: ask("picklescan", program, path))
    begun = time.monotonic()
    found = interleaved(blocks, REPEATS)
    for name, values in found.items():
        records.add(
            SPEED, name, spread(values, "median seconds"), seeds=[], n=REPEATS, seconds=time.monotonic() - begun
        )


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    for at in range(0, len(view), 5_000_000):
        crc = zlib.crc32(view[at : at + 5_000_000], crc)
    return crc


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__)
    made.add_argument("--scanner", action="append", default=[], metavar="NAME=PROGRAM", help=", ".join(SCANNERS))
    made.add_argument("--speed", action="store_true", help="measure seconds on a large file, too")
    return parse(made)


def main() -> None:
    """Ask every reader about every file."""
    args = arguments()
    scanners = dict(one.partition("=")[::2] for one in args.scanner)
    if unknown := set(scanners) - set(SCANNERS):
        stop(f"unknown scanners: {', '.join(sorted(unknown))}")
    about = (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ")
    records = Records("hostile", "Hostile files", about, args)
    with tempfile.TemporaryDirectory() as place:
        measure_kit(records, scanners, Path(place))
        if args.speed:
            measure_speed(records, scanners, Path(place))
    records.show()


if __name__ == "__main__":
    main()
