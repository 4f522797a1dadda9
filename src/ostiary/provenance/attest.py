"""Stating that a scan was of these very bytes: the record is held against the model before anything is signed."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from ostiary.core.errors import ConfigError
from ostiary.core.records import Record
from ostiary.provenance.attested import say
from ostiary.provenance.buffers import Buffers, as_files, read_all
from ostiary.provenance.envelope import Opened, sign
from ostiary.provenance.policy import Limits
from ostiary.provenance.scanned import (
    EXPIRES_DAYS,
    SCAN,
    SCANS,
    SVR,
    TEST_RESULT,
    Form,
    result_predicate,
    scan_predicate,
    subject_of,
    svr_predicate,
)

MOST = 36_500
"""The most days that a scan can be stated for."""
Open = Callable[[Path, Path | None], Any]
"""Opens the model at a path as the scan did, on the base at another where it is an adapter; it has a `digest`."""


def attest_scan(
    path: Path | str,
    record: Record,
    keys: Sequence[CryptoSigner],
    opener: Open,
    *,
    name: str | None = None,
    base: Path | str | None = None,
    form: Form = "scan",
    days: float = EXPIRES_DAYS,
    now: datetime | None = None,
) -> Opened:
    """Sign what the scan in `record` found, once the model at `path` is shown to be the one that was scanned.

    The files are read once; the model that `opener` makes of these same bytes must have the digest on record. `name`
    is the model's, by default that of the path. Raises ConfigError where the record is of another model or holds no
    finished scan, and what reading and opening raise.
    """
    path = Path(path)
    if record.kind not in SCANS:
        raise ConfigError(f"record {record.id} is of `{record.kind}`, not of a scan", hint="run `ostiary scan` first")
    found = _read(path)
    below = _read(Path(base)) if base is not None else None
    digest = _digest(found, path, below, base, opener)
    scanned = record.digests.get(SCANS[record.kind])
    if digest != scanned:
        raise ConfigError(
            f"record {record.id} is about another model: it has the digest {str(scanned)[:12]}, '{path}' {digest[:12]}",
            hint="scan this model; options that say how to read it must be those of the scan",
        )
    subject = subject_of(found.manifest, name or path.resolve().name)
    _check_days(days)
    manifest = below.manifest if below is not None else None
    scan = scan_predicate(record, found.manifest, subject.name, base=manifest, days=days, now=now)
    kind, predicate = {
        "scan": lambda: (SCAN, scan),
        "svr": lambda: (SVR, svr_predicate(scan)),
        "test-result": lambda: (TEST_RESULT, result_predicate(scan)),
    }[form]()
    return sign(say([subject], kind, predicate), keys)


def _check_days(days: float) -> None:
    """Raises ConfigError for an end that no calendar has."""
    if not 0 < days <= MOST:
        raise ConfigError(f"a scan cannot be stated for {days:g} days", hint=f"{MOST} are the most")


def _read(path: Path) -> Buffers:
    return read_all(path, "sha256", limit=Limits().max_bytes)


def _digest(found: Buffers, path: Path, below: Buffers | None, base: Path | str | None, opener: Open) -> str:
    """The digest of the model in these bytes, as a scan keeps it."""
    with as_files(found.files, path.resolve().name if found.folder else None) as folder:
        own = folder if found.folder else folder / next(iter(found.files))
        if below is None or base is None:
            return str(opener(own, None).digest)
        with as_files(below.files, Path(base).resolve().name) as under:
            return str(opener(own, under).digest)
