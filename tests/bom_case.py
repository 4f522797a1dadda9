"""Records, facts and bills of materials of a small model, without training or scanning one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from signed_case import write_model

from ostiary.core.records import (
    Calibration,
    Coverage,
    Environment,
    Evidence,
    Finding,
    MethodResult,
    ModelEvidence,
    Rate,
    RatesEvidence,
    Record,
    RepairEvidence,
)
from ostiary.provenance.bom.card import DataCard, Ethical, Link, ModelCardFile, Security, System
from ostiary.provenance.bom.check import read_bom
from ostiary.provenance.bom.cyclonedx import Facts, make_bom, to_bytes
from ostiary.provenance.bom.document import Bom
from ostiary.provenance.bom.environment import Library
from ostiary.provenance.bom.facts import Ancestor, Attested, Beside, DataSet, describe

WEIGHTS, OLD_WEIGHTS = "a" * 64, "b" * 64
CREATED = "2026-06-01T00:00:00Z"
ENVIRONMENT = Environment(
    ostiary="0.1.0", python="3.11", torch="2.13", platform="Linux x86_64", device="cpu", threads=1, cpu="a cpu, 2 cores"
)


def result(method: str, evidence: Evidence | None, **other: Any) -> MethodResult:
    whole: dict[str, Any] = {
        "method": method,
        "version": "1",
        "params": {},
        "status": "ok",
        "reason": None,
        "examined": (),
        "evidence": evidence,
        "findings": (),
        "cautions": (),
        "seconds": 1.0,
        "peak_bytes": 0,
    }
    return MethodResult(**{**whole, **other})


def record(kind: Any, number: int, results: tuple[MethodResult, ...], **other: Any) -> Record:
    """A record of the model with WEIGHTS, made on the day `number` of May 2026."""

    def having(status: str) -> tuple[str, ...]:
        return tuple(one.method for one in results if one.status == status)

    names = tuple(one.method for one in results)
    whole: dict[str, Any] = {
        "kind": kind,
        "id": f"{number:08x}",
        "created": f"2026-05-{number:02d}T00:00:00Z",
        "command": ("ostiary", kind),
        "config": {},
        "subject": "model",
        "digests": {"model": WEIGHTS},
        "environment": ENVIRONMENT,
        "seed": 7,
        "calibration": None,
        "coverage": Coverage(
            classes=("0", "1"),
            asked=names,
            ok=having("ok"),
            partial=having("partial"),
            skipped=having("skipped"),
            failed=having("failed"),
        ),
        "results": results,
        "verdict": None,
        "interrupted": False,
        "cautions": (),
        "artifacts": {},
    }
    return Record(**{**whole, **other})


def train(**other: Any) -> Record:
    rates = RatesEvidence(rates={"accuracy": Rate(k=90, n=100)}, measures={"final loss": 0.25})
    config = {
        "data": {"name": "signs:train", "samples": 1000},
        "recipe": {"epochs": 3, "augmented": {"from": "/home/somebody/aug"}},
        "out": "/home/somebody/model.safetensors",
    }
    params = {"checkpoint": "/home/somebody/half.pt"}
    whole = {"config": config, "digests": {"model": WEIGHTS, "data": "d" * 64}, **other}
    return record("train", 1, (result("training.train", rates, params=params),), **whole)


def scan(verdict: str = "none-found", number: int = 3, **other: Any) -> Record:
    found = ()
    if verdict in ("backdoor", "suspect"):
        level: Literal["backdoor", "suspect"] = "backdoor" if verdict == "backdoor" else "suspect"
        finding = Finding(
            code="OS201",
            level=level,
            confirmed=verdict == "backdoor",
            message="a small trigger leads to class 1",
            subject="class:1",
            score=9.0,
            threshold=2.0,
            calibration_id="within-model",
        )
        found = (finding,)
    evidence = ModelEvidence(score=1.5, per_class=(), examined=("class:0", "class:1"))
    results = (
        result("scan.neural-cleanse", evidence, findings=found, examined=("class:0", "class:1")),
        result("scan.mm-bd", None, status="skipped", reason="needs three classes"),
    )
    known = Calibration(id="ref", description="20 reference models", models=20, false_positive_rate=Rate(k=1, n=20))
    config = {"trusted": {"name": "/data/private/val", "samples": 50}}
    whole = {
        "verdict": verdict,
        "calibration": known,
        "config": config,
        "digests": {"model": WEIGHTS, "trusted": "e" * 64},
    }
    return record("scan", number, results, **{**whole, **other})


def evaluate(**other: Any) -> Record:
    rates = RatesEvidence(rates={"accuracy": Rate(k=95, n=100), "attack success rate": Rate(k=1, n=100)})
    whole = {
        "config": {"data": {"name": "signs:test", "samples": 100}},
        "digests": {"model": WEIGHTS, "data": "f" * 64},
        **other,
    }
    return record("evaluate", 4, (result("bench.evaluate", rates),), **whole)


def repair(**other: Any) -> Record:
    after = {"accuracy": Rate(k=94, n=100)}
    done = RepairEvidence(before={"accuracy": Rate(k=95, n=100)}, after=after)
    whole = {
        "digests": {"model": OLD_WEIGHTS, "repaired": WEIGHTS, "trusted": "e" * 64},
        "config": {"trusted": {"name": "val", "samples": 50}},
        "verdict": "none-found",
        **other,
    }
    return record("repair", 2, (result("repair.fine-pruning", done),), **whole)


CARD = ModelCardFile(
    author="A. Author",
    supplier="Example Institute",
    version="3",
    description="reads signs",
    licence="Apache-2.0",
    task="image classification",
    inputs=("image 3x32x32",),
    outputs=("one of two signs",),
    users=("road surveyors",),
    use_cases=("reading signs",),
    limitations=("night",),
    tradeoffs=("small and quick",),
    ethical=(Ethical(name="privacy", mitigation="faces are blurred"),),
    link=(Link(type="documentation", url="https://example.org/model"),),
    system=System(
        name="surveyor",
        producer="Example Institute",
        version="1",
        timestamp=CREATED,
        data_flow="camera to model to map",
        data_usage="pictures are not kept",
        application_area="road survey",
    ),
    security=Security(
        controls="loaded through a policy",
        compliance="none is claimed",
        policy="https://example.org/security",
        vulnerabilities="https://example.org/advisories",
    ),
    data={
        name: DataCard(
            description="pictures of signs", licence="CC-BY-4.0", owner="Example Institute", classification="public"
        )
        for name in ("signs:train", "signs:test")
    },
)
LIBRARIES = (
    Library("alpha", "1.0", "MIT", ("beta",)),
    Library("beta", "2.0", "MIT OR Apache-2.0", ()),
    Library("gamma", "3", "a licence of their own", ()),
)
BESIDE = Beside(
    ancestors=(Ancestor("base", "base-model", "c" * 64),),
    data=(DataSet("signs:train", root="1" * 64, samples=1000),),
    attestations=(Attested("model scan.sig", "2" * 64, "ostiary:scan/v1"),),
    libraries=LIBRARIES,
)


def facts(folder: Path, **other: Any) -> Facts:
    """All that can be told of a small model in `folder`/model."""
    model = folder / "model"
    if not model.exists():
        write_model(model)
    records = other.get("records", (train(), scan(), evaluate()))
    told = {"signs:train", *(one.config["data"]["name"] for one in records if "data" in one.config)}
    whole: dict[str, Any] = {
        "model": describe(model),
        "beside": BESIDE,
        "card": CARD.model_copy(update={"data": {name: CARD.data[name] for name in sorted(told)}}),
        "created": CREATED,
        "records": records,
        "weights": WEIGHTS,
    }
    return Facts(**{**whole, **other})


def made(folder: Path, version: Literal["1.6", "1.7"] = "1.6", **other: Any) -> dict[str, Any]:
    """A BOM as JSON's values, to be changed."""
    found: dict[str, Any] = json.loads(to_bytes(make_bom(facts(folder, **other), version)))
    return found


def reread(value: Any) -> Bom:
    return read_bom(json.dumps(value).encode())


def changed(value: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A copy with something changed in it."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    change(copy)
    return copy
