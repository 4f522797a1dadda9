"""Records as the verbs write them, with synthetic arrays: no model is needed to test a report."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostiary.core.records import (
    Artifact,
    Calibration,
    Candidate,
    Caution,
    ClassScore,
    Coverage,
    Environment,
    Finding,
    GuardEvidence,
    Kind,
    MethodResult,
    ModelEvidence,
    Rate,
    RatesEvidence,
    Record,
    RepairEvidence,
    SampleEvidence,
    Status,
    Suspect,
    Verdict,
)

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TARGET = 7
Pair = tuple[Record, Path]


def make_artifact(file: Path, path: str, shape: tuple[int, ...]) -> Artifact:
    """The entry for a file as it is now."""
    return Artifact(path=path, shape=shape, dtype="float32", sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def save(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Artifact]:
    """Write the arrays as a record's artifacts."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    made = {}
    for name, array in arrays.items():
        path = f"artifacts/{name}.npy"
        np.save(folder / path, array)
        made[name] = make_artifact(folder / path, path, array.shape)
    return made


def result(method: str, evidence: Any = None, findings: tuple[Finding, ...] = (), **fields: Any) -> MethodResult:
    status: Status = fields.pop("status", "ok")
    values: dict[str, Any] = {
        "version": "1",
        "params": {"steps": 500, "lr": 0.1},
        "reason": None,
        "examined": evidence.examined if evidence else (),
        "cautions": (),
        "seconds": 41.7,
        "peak_bytes": 1 << 28,
    }
    return MethodResult(method=method, status=status, evidence=evidence, findings=findings, **(values | fields))


def record(kind: Kind, results: tuple[MethodResult, ...], verdict: Verdict | None, **fields: Any) -> Record:
    def named(status: str) -> tuple[str, ...]:
        return tuple(r.method for r in results if r.status == status)

    coverage = Coverage(
        classes=CLASSES,
        asked=tuple(r.method for r in results),
        ok=named("ok"),
        partial=named("partial"),
        skipped=named("skipped"),
        failed=named("failed"),
    )
    values: dict[str, Any] = {
        "id": f"20260211T101500Z-{kind}-3f9ac2",
        "created": "2026-02-11T10:15:00Z",
        "command": ("ostiary", kind, "digits-badnets.safetensors", "--trusted", "my data/trusted", "-o", "out.html"),
        "config": {"preset": "standard", "limits": {}},
        "subject": "digits-badnets.safetensors",
        "digests": {
            "model": "sha256:" + hashlib.sha256(str(fields.get("subject")).encode()).hexdigest(),
            "trusted": "sha256:" + "b07e11" * 10 + "b07e",
        },
        "environment": Environment(
            ostiary="0.1.0",
            python="3.11.2",
            torch="2.13.0",
            platform="Linux-6.1-x86_64",
            device="cpu",
            threads=2,
            cpu="Xeon, 2.1 GHz",
        ),
        "seed": 7,
        "calibration": Calibration(
            id="within-model", description="the other classes", models=0, false_positive_rate=None
        ),
        "interrupted": False,
        "cautions": (),
        "artifacts": {},
    }
    return Record(kind=kind, results=results, verdict=verdict, coverage=coverage, **(values | fields))


def _scan_arrays(rng: np.random.Generator, backdoored: bool) -> dict[str, np.ndarray]:
    k, side = len(CLASSES), 28
    rows, cols = np.mgrid[:side, :side]
    mask = np.zeros((k, side, side), np.float32)
    for label in range(k):
        y, x = rng.integers(6, 22, 2)
        blob = np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / rng.uniform(18, 40))
        mask[label] = np.clip(blob + rng.uniform(0, 0.12, (side, side)), 0, 1)
    pattern = rng.uniform(0, 1, (k, 3, side, side)).astype(np.float32)
    if backdoored:
        mask[TARGET] = rng.uniform(0, 0.02, (side, side))
        mask[TARGET, 23:27, 23:27] = 0.96
        pattern[TARGET, :2, 23:27, 23:27], pattern[TARGET, 2, 23:27, 23:27] = 1, 0.05
    sample = np.zeros((3, side, side), np.float32)
    sample[:, 5:23, 11:14] = 0.9
    sample[:, 5:8, 11:19] = 0.9
    sample[:, 13:15, 11:18] = 0.8
    return {"neural-cleanse-mask": mask, "neural-cleanse-pattern": pattern, "neural-cleanse-sample": sample}


def scan_record(folder: Path, *, backdoored: bool) -> Pair:
    rng = np.random.default_rng(1 if backdoored else 2)
    arrays = _scan_arrays(rng, backdoored)
    sizes = arrays["neural-cleanse-mask"].sum((1, 2), dtype=np.float64)
    median = float(np.median(sizes))
    deviation = 1.4826 * float(np.median(np.abs(sizes - median)))
    scores = tuple(
        ClassScore(
            label=k,
            score=(median - size) / deviation,
            measures={
                "anomaly_index": (median - size) / deviation,
                "size_ratio": median / size,
                "mask_l1": float(size),
                "flip_held_out": 0.975 if k == TARGET else 0.94,
            },
            rates={"flip_search": Rate(k=197, n=200), "flip_held_out": Rate(k=195 if k == TARGET else 188, n=200)},
        )
        for k, size in enumerate(sizes.tolist())
    )
    top = max(scores, key=lambda s: s.score or 0)
    candidates = tuple(
        Candidate(
            subject=f"class:{s.label}",
            target=s.label,
            score=s.score,
            size=s.measures["mask_l1"],
            flip_search=s.rates["flip_search"],
            flip_held_out=s.rates["flip_held_out"],
            artifact="neural-cleanse",
        )
        for s in scores
    )
    evidence = ModelEvidence(
        score=top.score,
        per_class=scores,
        candidates=candidates,
        examined=tuple(f"class:{k}" for k in range(len(CLASSES))),
    )
    finding = Finding(
        code="OS201",
        level="backdoor",
        confirmed=True,
        message="a trigger of 16 pixels sends 97.5 % of held-out trusted images to this class",
        subject=f"class:{TARGET}",
        score=top.score,
        threshold=2.0,
        calibration_id="within-model",
    )
    skipped = result(
        "scan.reference-bank",
        status="skipped",
        reason="needs reference models of the same architecture",
        params={},
        seconds=0.0,
    )
    return record(
        "scan",
        (result("scan.neural-cleanse", evidence, (finding,) if backdoored else ()), skipped),
        "backdoor" if backdoored else "none-found",
        subject="digits-badnets.safetensors" if backdoored else "digits-twin.safetensors",
        config={
            "preset": "standard",
            "limits": {
                "scan.neural-cleanse": {
                    "anomaly_index": {"low": 2.0, "high": None},
                    "size_ratio": {"low": 3.0, "high": None},
                    "flip_held_out": {"low": 0.75, "high": None},
                }
            },
        },
        cautions=(
            Caution(code="OS901", text="no reference models for this architecture: limits are within the model"),
        ),
        artifacts=save(folder, arrays),
    ), folder


def screen_record(folder: Path) -> Pair:
    rng = np.random.default_rng(3)
    n, bad, side = 2000, 60, 28
    scores = rng.gamma(2.0, 0.4, n)
    suspected = np.zeros(n, np.uint8)
    suspected[:bad] = 1
    scores[:bad] += 4
    scores[-20:] = np.nan
    groups = [rng.normal((0, 0), (1.2, 0.8), (300, 2)), rng.normal((5, 1.5), 0.5, (bad, 2))]
    pca = np.concatenate(
        [np.column_stack([xy, np.full(len(xy), g), np.full(len(xy), TARGET)]) for g, xy in enumerate(groups)]
        + [np.column_stack([rng.normal(0, 1, (300, 2)), rng.integers(0, 2, 300), np.full(300, 3)])]
    )
    shown = 12
    images = rng.integers(0, 60, (shown, 3, side, side)).astype(np.uint8)
    images[:, :, 6:22, 12:15] = 220
    nearest = images.copy()
    images[:, :2, 23:27, 23:27], images[:, 2, 23:27, 23:27] = 255, 10
    evidence = SampleEvidence(
        n=n,
        scored=n - 20,
        suspected=bad,
        per_class=tuple(
            ClassScore(
                label=k,
                score=0.41 if k == TARGET else 0.08 + 0.01 * k,
                measures={"silhouette": 0.41 if k == TARGET else 0.08 + 0.01 * k, "smaller_share": 0.17},
            )
            for k in range(len(CLASSES))
        ),
        suspects=tuple(
            Suspect(id=f"train/{i:05d}", label=TARGET, score=6.2 - 0.1 * i, nearest=f"train/{900 + i:05d}")
            for i in range(bad)
        ),
        examined=tuple(f"class:{k}" for k in range(len(CLASSES))),
        artifact="activation-clustering",
    )
    finding = Finding(
        code="OS301",
        level="suspect",
        confirmed=False,
        message="the activations of this class fall into two groups, 17 % in the smaller",
        subject=f"class:{TARGET}",
        score=0.41,
        threshold=0.25,
        calibration_id="within-model",
    )
    arrays = {"scores": scores, "suspected": suspected, "pca": pca, "gallery": images, "gallery-nearest": nearest}
    return record(
        "screen",
        (result("screen.activation-clustering", evidence, (finding,)),),
        "suspect",
        subject="digits-poisoned.npz",
        artifacts=save(folder, {f"activation-clustering-{k}": v for k, v in arrays.items()}),
    ), folder


def repair_record(folder: Path) -> Pair:
    before = tuple(Rate(k=96 + k % 4, n=100) for k in range(10))
    after = tuple(Rate(k=94 + k % 5, n=100) for k in range(10))
    evidence = RepairEvidence(
        before={"accuracy": Rate(k=1954, n=2000), "flip rate of the recovered trigger": Rate(k=195, n=200)},
        after={"accuracy": Rate(k=1939, n=2000), "flip rate of the recovered trigger": Rate(k=3, n=200)},
        per_class_before=before,
        per_class_after=after,
        selected={"epochs 10": "trusted, selection half"},
    )
    config = {"max_loss": 2.0, "out": "repaired.safetensors"}
    return record("repair", (result("repair.unlearn", evidence),), None, config=config), folder


def evaluate_record(folder: Path) -> Pair:
    evidence = RatesEvidence(
        rates={
            "accuracy": Rate(k=1954, n=2000),
            "attack success": Rate(k=1781, n=1800),
            "robust accuracy": Rate(k=11, n=1800),
        },
        measures={"test_loss": 0.0812},
        per_class=tuple(ClassScore(label=k, score=None, rates={"accuracy": Rate(k=190 + k, n=200)}) for k in range(10)),
    )
    return record("evaluate", (result("evaluate.rates", evidence),), None), folder


def harden_record(folder: Path) -> Pair:
    evidence = RatesEvidence(
        rates={
            "samples that get the label they carry": Rate(k=1150, n=1212),
            "suspected samples that get the label they carry": Rate(k=1, n=12),
        },
        selected={"unlearning": "60 steps, until isolated samples had lost their label"},
    )
    return record("harden", (result("harden.abl", evidence),), None), folder


def guard_record(folder: Path) -> Pair:
    rng = np.random.default_rng(5)
    trusted = rng.normal(-1.4, 0.25, 500)
    scored = np.concatenate((rng.normal(-1.4, 0.25, 400), rng.normal(-0.2, 0.1, 100)))
    evidence = GuardEvidence(
        threshold=-0.85,
        false_rejection=Rate(k=6, n=500),
        flagged=Rate(k=int((scored >= -0.85).sum()), n=500),
        artifact="strip",
    )
    arrays = {"strip-trusted-scores": trusted, "strip-scores": scored}
    return record("guard", (result("guard.strip", evidence),), None, artifacts=save(folder, arrays)), folder


MAKERS: dict[str, Callable[[Path], Pair]] = {
    "scan": lambda folder: scan_record(folder, backdoored=True),
    "twin": lambda folder: scan_record(folder, backdoored=False),
    "screen": screen_record,
    "repair": repair_record,
    "evaluate": evaluate_record,
    "guard": guard_record,
    "harden": harden_record,
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Pair]:
    """Makes the record of that name, once per folder."""
    return lambda name: MAKERS[name](tmp_path / name)


@pytest.fixture
def with_array() -> Callable[[Pair, str, np.ndarray], Pair]:
    """Replaces one array of a record."""

    def replaced(pair: Pair, name: str, array: np.ndarray) -> Pair:
        record, folder = pair
        return record.model_copy(update={"artifacts": record.artifacts | save(folder, {name: array})}), folder

    return replaced


@pytest.fixture
def entry() -> Callable[[Path, str, tuple[int, ...]], Artifact]:
    """Makes the entry for a file as it is now."""
    return make_artifact
