"""Speed of signing, verifying and verified loading, beside hashing alone and model-signing, in the same run.

    python -m benchmarks.signing_speed

A model of two files of 1 GiB, a folder of 20,000 small files, and a safetensors file of 500 MB, all of random bytes and
in the page cache. The floor of signing and verifying is one pass of SHA-256 (or BLAKE3) over the same files, each file
in a thread of its own as far as there are cores; that of loading is to read the file into memory and hash it. Blocks
run in turn; medians are compared. `admit` is held against `verify`, under a policy that asks for a scan of these bytes.
model-signing runs as a library, with a key, without the time of its import.

Needs 3 GB of disk and the packages blake3 and model-signing (`pip install 'ostiary[blake3]' model-signing pyOpenSSL`).
Two cores: about 5 minutes.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import Records, interleaved, parse, parser
from safetensors.torch import save_file

from ostiary.api import scan_model
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.provenance.admission import admit
from ostiary.provenance.attested import say
from ostiary.provenance.envelope import sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.loader import load_verified
from ostiary.provenance.manifest import ALGORITHMS, digest, hasher
from ostiary.provenance.policy import read_policy
from ostiary.provenance.scanned import SCAN, scan_predicate, subject_of
from ostiary.provenance.sign import sign_model
from ostiary.provenance.trust import read_trust
from ostiary.provenance.verify import verify

GIB = 2**30
SMALL = 20_000
TENSORS = 25


def timed(block: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    block()
    return time.perf_counter() - begun


def write_large(folder: Path) -> None:
    folder.mkdir()
    for name in ("one.bin", "two.bin"):
        with (folder / name).open("wb") as stream:
            for _ in range(GIB // 2**24):
                stream.write(os.urandom(2**24))


def write_small(folder: Path) -> None:
    folder.mkdir()
    for number in range(SMALL):
        part = folder / str(number % 100)
        part.mkdir(exist_ok=True)
        (part / str(number)).write_bytes(os.urandom(200))


def write_weights(path: Path) -> None:
    """500 MB in 25 tensors of normal values."""
    save_file({f"layer{n}.weight": torch.randn(5_000_000) for n in range(TENSORS)}, path)


def signed_weights(root: Path) -> Path:
    """Those 500 MB with a signature beside them, written once."""
    path = root / "weights.safetensors"
    if not path.exists():
        write_weights(path)
        Path(f"{path}.sig").write_bytes(sign_model(path, [read_private(root / "k.key")]).to_json())
    return path


def hash_once(files: list[Path], algorithm: str) -> None:
    """One pass over the files, without anything else."""

    def one(path: Path) -> None:
        state, buffer = hasher(algorithm)(), bytearray(2**20)
        view = memoryview(buffer)
        with path.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                state.update(view[:count])
        state.digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, files))


def read_and_hash(path: Path) -> None:
    hashlib.sha256(path.read_bytes()).digest()


def peer(folder: Path, root: Path, algorithm: str) -> tuple[Callable[[], Any], Callable[[], Any]] | None:
    """model-signing's signing and verifying; None where it is not installed."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError:
        return None
    key, public, signature = root / "ec.key", root / "ec.pub", root / f"{folder.name}.oms"
    hashed = hashing.Config().use_file_serialization(hashing_algorithm=algorithm)
    sign = partial(signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashed).sign)
    check = verifying.Config().use_elliptic_key_verifier(public_key=public).verify
    return partial(sign, folder, signature), partial(check, folder, signature)


def folders(args: argparse.Namespace, records: Records, root: Path) -> None:
    """The two folders, with each algorithm."""
    signer, trust = read_private(root / "k.key"), read_trust(root / "k.pub")
    for title, folder in (("2 GiB in two files", root / "large"), (f"{SMALL} files", root / "small")):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for algorithm in ALGORITHMS:
            if records.has("signing", f"{title}, {algorithm}"):
                continue
            begun = time.monotonic()
            signature = root / "x.sig"
            signature.write_bytes(sign_model(folder, [signer], algorithm=algorithm).to_json())
            blocks: dict[str, Callable[[], Any]] = {
                "hash": partial(hash_once, files, algorithm),
                "sign": partial(sign_model, folder, [signer], algorithm=algorithm),
                "verify": partial(verify, folder, signature, trust),
            }
            if (pair := peer(folder, root, algorithm)) is not None:
                blocks |= {"model-signing sign": pair[0], "model-signing verify": pair[1]}
            found = interleaved({name: partial(timed, block) for name, block in blocks.items()}, args.repeats)
            figures = {f"{name}, s": statistics.median(seconds) for name, seconds in found.items()}
            for name in list(blocks)[1:]:
                figures[f"{name} / hash"] = ratio(found[name], found["hash"])
            records.add(
                "signing",
                f"{title}, {algorithm}",
                figures,
                seeds=[],
                n=args.repeats,
                seconds=time.monotonic() - begun,
            )


def loading(args: argparse.Namespace, records: Records, root: Path) -> None:
    """The safetensors file."""
    if records.has("loading", "500 MB of safetensors"):
        return
    begun = time.monotonic()
    path = signed_weights(root)
    from safetensors.torch import load

    blocks: dict[str, Callable[[], Any]] = {
        "read and hash": partial(read_and_hash, path),
        "verified load": partial(load_verified, path, root / "k.pub"),
        "safetensors load of bytes": lambda: load(path.read_bytes()),
    }
    found = interleaved({name: partial(timed, block) for name, block in blocks.items()}, args.repeats)
    figures = {f"{name}, s": statistics.median(seconds) for name, seconds in found.items()}
    figures["verified load / read and hash"] = ratio(found["verified load"], found["read and hash"])
    seconds = time.monotonic() - begun
    records.add("loading", "500 MB of safetensors", figures, seeds=[], n=args.repeats, seconds=seconds)


def admitting(args: argparse.Namespace, records: Records, root: Path) -> None:
    """The same file under a policy that asks for a scan: what `admit` adds to `verify`."""
    if records.has("admitting", "500 MB of safetensors"):
        return
    begun = time.monotonic()
    path, trust = signed_weights(root), read_trust(root / "k.pub")
    state_scan(path, root)
    (root / "policy.toml").write_text('version = 1\ntrust = "k.pub"\n[scan]\nseparate = false\n')
    policy = read_policy(root / "policy.toml")
    assert admit(path, policy).decision == "admitted"  # noqa: S101 - a refusal would be quicker
    blocks = {"verify": partial(verify, path, f"{path}.sig", trust), "admit": partial(admit, path, policy)}
    found = interleaved({name: partial(timed, block) for name, block in blocks.items()}, args.repeats)
    figures = {f"{name}, s": statistics.median(seconds) for name, seconds in found.items()}
    more = [admitted - verified for admitted, verified in zip(found["admit"], found["verify"], strict=True)]
    figures["admit adds, s"] = statistics.median(more)
    seconds = time.monotonic() - begun
    records.add("admitting", "500 MB of safetensors", figures, seeds=[], n=args.repeats, seconds=seconds)


def state_scan(path: Path, root: Path) -> None:
    """A statement about a scan of these bytes, made of the record of another model's: only its length counts here."""
    os.environ["OSTIARY_RUNS"] = str(root / "runs")
    tiny = TorchClassifier(build("small-cnn", 10), 10, (3, 32, 32))
    record = scan_model(tiny, methods=["trojan-signature"])
    manifest = digest(path)
    predicate = scan_predicate(record.model_copy(update={"verdict": "none-found"}), manifest, path.name)
    payload = say([subject_of(manifest, path.name)], SCAN, predicate)
    Path(f"{path}.scan").write_bytes(sign(payload, [read_private(root / "k.key")]).to_json())


def ratio(seconds: list[float], floor: list[float]) -> float:
    """The median of the ratios of blocks that ran one after the other."""
    return statistics.median(one / other for one, other in zip(seconds, floor, strict=True))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=7, help="times each block runs")
    args = parse(made)
    about = (
        "Seconds of signing, verifying and verified loading, and their ratio to one pass of the same hash over the "
        "same files (for loading: to reading and hashing), all in one run, in turn. Medians of the repeats."
    )
    records = Records("signing_speed", "Signing, verifying and verified loading", about, args)
    with tempfile.TemporaryDirectory() as made_folder:
        root = Path(made_folder)
        new_key(root / "k")
        new_key(root / "ec", "ecdsa")
        write_large(root / "large")
        write_small(root / "small")
        folders(args, records, root)
        loading(args, records, root)
        admitting(args, records, root)
    records.show()


if __name__ == "__main__":
    main()
