"""Records of scans that were never run, and statements made of them: what gates are held against."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from securesystemslib.signer import CryptoSigner

from ostiary.core.records import (
    Coverage,
    Environment,
    Finding,
    MethodResult,
    ModelEvidence,
    Record,
    Verdict,
)
from ostiary.provenance.attest import attest_scan

DIGEST = "d" * 64
SCANNED = datetime.now(UTC) - timedelta(hours=1)


def tried(method: str, *, status: str = "ok", findings: Sequence[Finding] = (), classes: int = 2) -> MethodResult:
    done = status == "ok"
    return MethodResult(
        method=method,
        version="1",
        params={"steps": 3},
        status=status,
        reason=None if done else "no time left",
        examined=tuple(f"class:{label}" for label in range(classes)) if done else (),
        evidence=ModelEvidence(score=1.5, per_class=(), examined=()) if done else None,
        findings=tuple(findings),
        cautions=(),
        seconds=1.0,
        peak_bytes=1,
    )


def accusation(level: str = "suspect") -> Finding:
    return Finding(
        code="OS201",
        level=level,
        confirmed=level == "backdoor",
        message="class 1 stands out",
        subject="class:1",
        score=3.0,
        threshold=2.0,
        calibration_id=None,
    )


def make_record(
    verdict: Verdict = "none-found",
    *,
    results: Sequence[MethodResult] | None = None,
    scanned: datetime = SCANNED,
    **changes: Any,
) -> Record:
    """A finished scan of a model of two classes by Neural Cleanse and the search for warps."""
    found = {"backdoor": [accusation("backdoor")], "suspect": [accusation()]}.get(verdict, [])
    if results is None:
        status = "skipped" if verdict == "incomplete" else "ok"
        results = [
            tried("scan.neural-cleanse", status=status, findings=found),
            tried("scan.warp-trigger", status=status),
        ]
    names = tuple(one.method for one in results)
    fields = {
        "kind": "scan",
        "id": "1a2b3c4d",
        "created": scanned.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "command": ("ostiary", "scan"),
        "config": {"model": "model", "trusted": {"name": "some", "samples": 20}},
        "subject": "model",
        "digests": {"model": DIGEST, "trusted": "e" * 64},
        "environment": Environment(
            ostiary="0.1.0", python="3.11", torch="2.13", platform="Linux", device="cpu", threads=1, cpu="one"
        ),
        "seed": 0,
        "calibration": None,
        "coverage": Coverage(classes=("a", "b"), asked=names, ok=names, partial=(), skipped=(), failed=()),
        "results": tuple(results),
        "verdict": verdict,
        "interrupted": False,
        "cautions": (),
        "artifacts": {},
    }
    return Record.model_validate({**fields, **changes})


def opener(path: Path, base: Path | None) -> Any:
    """What stands for a model: it has the digest that is on record."""
    return SimpleNamespace(digest=DIGEST)


def state_scan(
    folder: Path, key: CryptoSigner, verdict: Verdict = "none-found", *, out: Path | None = None, **how: Any
) -> Path:
    """A signed statement about a scan of `folder`, by default beside it."""
    of_record = {name: how.pop(name) for name in ("results", "scanned") if name in how}
    record = how.pop("record", None) or make_record(verdict, **of_record)
    made = attest_scan(folder, record, [key], opener, **how)
    out = out or Path(f"{folder}.scan")
    out.write_bytes(made.to_json())
    return out
