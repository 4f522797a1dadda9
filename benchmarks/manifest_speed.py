"""Speed and memory of manifests of data sets, beside hashing the same bytes alone, and of the index over them.

    python -m benchmarks.manifest_speed

60,000 samples of the size of CIFAR-10's (random pixels) in an .npz file and, encoded as PNG, in a Parquet file with
row groups of 1,000; then synthetic texts' digests by the million, for which no data are read. `ostiary manifest make`
and `verify` run as commands in a process of their own, with all imports, and beside them one pass of SHA-256 over the
same file. Blocks run in turn; medians are compared. Peak memory is that of the child process. In the set of 60,000 one
label is flipped, and `manifest diff` must name it and nothing else.

Two cores: about 5 minutes. Seconds of processor time are given beside those of the clock: on a busy machine the clock
says more about its other work.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.common import Records, note, parse, parser, stop
from PIL import Image

from ostiary.core.memory import peak_rss
from ostiary.provenance.envelope import sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.samples.compare import repeated
from ostiary.provenance.samples.index import Index
from ostiary.provenance.samples.leaf import Sample
from ostiary.provenance.samples.manifest import About, SampleManifest, write_manifest
from ostiary.provenance.samples.proof import prove
from ostiary.provenance.samples.statements import state_set
from ostiary.provenance.trust import read_trust

SMALL = 60_000
SEED = 0


# A small process between this one and the command: what starts a process hands its own peak of memory on to it.
WRAPPER = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
wall, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
processor = used.ru_utime + used.ru_stime
print(json.dumps([wall, processor, used.ru_maxrss * 1024, done.stdout, done.stderr, done.returncode]))
"""


def measured(args: list[str]) -> tuple[float, float, int, str]:
    """Seconds of the clock and of the processor, peak bytes and output of one command in a process of its own."""
    called = [sys.executable, "-c", WRAPPER, *args]
    done = subprocess.run(called, capture_output=True, text=True, check=True)  # noqa: S603 - a command of ours
    wall, processor, peak, out, err, status = json.loads(done.stdout)
    if status not in (0, 1):
        raise RuntimeError(err)
    return wall, processor, peak, out


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ostiary", *words]


def hashed(path: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor of one pass of SHA-256 over a file in the page cache."""
    begun, before = time.perf_counter(), time.process_time()
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")
    return time.perf_counter() - begun, time.process_time() - before


def write_small(root: Path) -> dict[str, Path]:
    """The arrays, the same with a flipped label, and the encoded images."""
    rng = np.random.default_rng(SEED)
    pixels, labels = rng.integers(0, 256, (SMALL, 32, 32, 3), np.uint8), np.arange(SMALL) % 10
    np.savez(root / "arrays.npz", x=pixels, y=labels)
    labels[31_415] = (labels[31_415] + 1) % 10
    np.savez(root / "flipped.npz", x=pixels, y=labels)
    images = [encoded(one) for one in pixels]
    table = pa.table({"image": pa.array(images, pa.binary()), "label": labels})
    pq.write_table(table, root / "images.parquet", row_group_size=1000, compression="none")
    return {"arrays in .npz": root / "arrays.npz", "PNG in Parquet": root / "images.parquet"}


def encoded(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def small(args: argparse.Namespace, records: Records, root: Path) -> None:
    """60,000 samples from the command line."""
    if all(records.has("60,000 samples", title) for title in ("arrays in .npz", "PNG in Parquet", "one label flipped")):
        return
    for title, path in write_small(root).items():
        begun = time.monotonic()
        rows: dict[str, list[tuple[float, float]]] = {"make": [], "verify": [], "SHA-256": []}
        peak = 0
        for repeat in range(args.repeats + 1):
            out = root / f"{repeat}-{path.name}.manifest"
            found = measured(command("manifest", "make", str(path), "-o", str(out)))
            checked = measured(command("manifest", "verify", str(path), str(out)))
            if repeat:  # the first is for the page cache and compiled files
                rows["make"].append(found[:2])
                rows["verify"].append(checked[:2])
                rows["SHA-256"].append(hashed(path))
                peak = max(peak, found[2])
            note(f"{title}: {found[0]:.2f} s, {found[1]:.2f} s of processor")
        figures: dict[str, float] = {}
        for name, pairs in rows.items():
            figures[f"{name}, s"] = statistics.median(wall for wall, _ in pairs)
            figures[f"{name}, processor s"] = statistics.median(processor for _, processor in pairs)
        figures["make / SHA-256"] = figures["make, processor s"] / figures["SHA-256, processor s"]
        figures["peak of make, MB"] = peak / 1e6
        figures["manifest, bytes a sample"] = (root / f"0-{path.name}.manifest").stat().st_size / SMALL
        records.add("60,000 samples", title, figures, seeds=[SEED], n=args.repeats, seconds=time.monotonic() - begun)
    begun = time.monotonic()
    one, other = root / "0-arrays.npz.manifest", root / "flipped.manifest"
    measured(
        command(
            "manifest",
            "make",
            str(root / "flipped.npz"),
            "-o",
            str(other),
            "--name",
            "flipped",
            "--source",
            "arrays.npz",
        )
    )
    seconds, _, _, out_ = measured(command("manifest", "diff", str(one), str(other), "--format", "json"))
    changes = json.loads(out_)["changes"]
    right = [(change["what"], change["id"]) for change in changes] == [("relabelled", "31415")]
    figures = {"diff, s": seconds, "found exactly": float(right)}
    records.add("60,000 samples", "one label flipped", figures, seeds=[SEED], n=1, seconds=time.monotonic() - begun)


def synthetic(count: int) -> Iterator[Sample]:
    """Samples whose contents are digests of their numbers, in an order that is not that of their ids."""
    for number in range(count):
        yield Sample(
            f"img/{number % 997:03}/{number:08}.png",
            hashlib.sha256(b"%d" % number).digest(),
            str(number % 1000),
            f"source-{number % 50}",
        )


def large(args: argparse.Namespace, records: Records, root: Path) -> None:
    """Millions of samples in a process of their own, so that its peak is theirs."""
    for count in args.counts:
        if records.has("synthetic samples", f"{count:,}"):
            continue
        begun = time.monotonic()
        *_, out = measured([sys.executable, "-m", "benchmarks.manifest_speed", "--child", str(count)])
        figures = json.loads(out)
        records.add("synthetic samples", f"{count:,}", figures, seeds=[], n=1, seconds=time.monotonic() - begun)


def child(count: int) -> None:
    """Every step over `count` samples; prints the figures."""
    figures: dict[str, float] = {"peak at the start, MB": peak_rss() / 1e6}

    def step(name: str, begun: float) -> None:
        figures[f"{name}, s"] = time.perf_counter() - begun
        figures[f"peak after {name}, MB"] = peak_rss() / 1e6

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        new_key(root / "k")
        trust = read_trust(root / "k.pub")
        begun = time.perf_counter()
        summary = write_manifest(root / "m", About(name="synthetic", kind="file"), synthetic(count))
        step("make", begun)
        begun = time.perf_counter()
        SampleManifest(root / "m").summary()
        step("read", begun)
        begun = time.perf_counter()
        prove(root / "m", f"img/{7:03}/{7:08}.png")
        step("prove", begun)
        begun = time.perf_counter()
        groups = list(repeated(SampleManifest(root / "m")))
        step("report", begun)
        index = Index(root / "index")
        index.add_statement(sign(state_set(summary), [read_private(root / "k.key")]).to_json(), trust, "s", state=root)
        begun = time.perf_counter()
        index.add_manifest(root / "m", trust, state=root)
        step("index", begun)
        begun = time.perf_counter()
        found = index.by_content(summary.root.hex(), hashlib.sha256(b"77").digest())
        step("look up", begun)
        if groups or len(found) != 1:
            stop("what is known of the synthetic samples was not found")
        figures["manifest, MB"] = (root / "m").stat().st_size / 1e6
        figures["database, MB"] = sum(path.stat().st_size for path in (root / "index" / "sets").glob("*.sqlite")) / 1e6
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures["processor, s"] = used.ru_utime + used.ru_stime
    print(json.dumps(figures))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=5, help="times each command runs")
    made.add_argument("--counts", type=int, nargs="+", default=[500_000, 2_000_000], help="synthetic samples")
    made.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parse(made)
    if args.child is not None:
        child(args.child)
        return
    about = (
        "Manifests of data sets: seconds of the commands with all imports, of the clock and of the processor, and the "
        "ratio of the processor's to one pass of SHA-256 over the same file; and steps over millions of synthetic "
        "samples with the peak of the process so far. Medians of the repeats."
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    records = Records("manifest_speed", "Manifests of data sets", about, args)
    with tempfile.TemporaryDirectory() as folder:
        small(args, records, Path(folder))
        large(args, records, Path(folder))
    records.show()


if __name__ == "__main__":
    main()
