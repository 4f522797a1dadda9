"""Records: rates with their interval, strict keys, whole JSON round trips."""

import json
import math
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.stats import binomtest

from ostiary.core.records import (
    Artifact,
    Calibration,
    Candidate,
    Caution,
    ClassScore,
    Coverage,
    Environment,
    Evidence,
    Finding,
    GuardEvidence,
    MethodResult,
    ModelEvidence,
    Rate,
    RatesEvidence,
    Record,
    RepairEvidence,
    SampleEvidence,
    Suspect,
)

HALF = Rate(k=5, n=10)
ROW = ClassScore(label=3, score=None, measures={"n": 4.0}, rates={"flip": HALF})
CANDIDATE = Candidate(
    subject="class:3",
    target=3,
    score=None,
    size=9.5,
    flip_search=Rate(k=0, n=0),
    flip_held_out=HALF,
    artifact="m",
    mask=np.ones((2, 2)),
    pattern=np.zeros((3, 2, 2)),
)
SUSPECT = Suspect(id="a/b é", label=1, score=-0.5, nearest=None)
EVIDENCE: tuple[Any, ...] = (
    ModelEvidence(score=2.5, probability=0.5, per_class=(ROW,), candidates=(CANDIDATE,), examined=("class:3",)),
    SampleEvidence(n=9, scored=8, suspected=1, per_class=(ROW,), suspects=(SUSPECT,), examined=(), artifact="s"),
    RepairEvidence(before={"accuracy": HALF}, after={"accuracy": HALF}, per_class_before=(HALF,), selected={"a": "b"}),
    GuardEvidence(threshold=-0.1, false_rejection=HALF, flagged=None, suspects=(SUSPECT,), artifact="g"),
    RatesEvidence(rates={"accuracy": HALF}, measures={"loss": 0.25}, per_class=(ROW,), examined=("model",)),
)


def a_record(**fields: Any) -> Record:
    finding = Finding(
        code="OS201",
        level="suspect",
        confirmed=False,
        message="m",
        subject="class:3",
        score=2.5,
        threshold=2.0,
        calibration_id=None,
    )
    results = tuple(
        MethodResult(
            method=f"scan.m{number}",
            version="1",
            params={"steps": 5, "name": "x", "lr": 0.5, "none": None},
            status="ok",
            reason=None,
            examined=evidence.examined,
            evidence=evidence,
            findings=(finding,),
            cautions=(Caution(code="OS901", text="few"),),
            seconds=0.5,
            peak_bytes=1,
        )
        for number, evidence in enumerate(EVIDENCE)
    )
    values: dict[str, Any] = {
        "kind": "scan",
        "id": "abc",
        "created": "2026-01-01T00:00:00Z",
        "command": ("ostiary", "scan"),
        "config": {"preset": "quick", "list": [1, 2]},
        "subject": "m.pt",
        "digests": {"model": "0" * 64},
        "environment": Environment(ostiary="1", python="3", torch="2", platform="L", device="cpu", threads=1, cpu="c"),
        "seed": 0,
        "calibration": Calibration(id="i", description="d", models=0, false_positive_rate=None),
        "coverage": Coverage(classes=("a",), asked=(), ok=(), partial=(), skipped=(), failed=()),
        "results": results,
        "verdict": "suspect",
        "interrupted": False,
        "cautions": (),
        "artifacts": {"s": Artifact(path="artifacts/s.npy", shape=(3,), dtype="float32", sha256="0" * 64)},
    }
    return Record(**(values | fields))


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
def test_a_rate_carries_its_wilson_interval(n: int) -> None:
    for k in {0, 1, n // 2, n - 1, n}:
        rate, want = Rate(k=k, n=n), binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert rate.value == k / n
        assert rate.low == pytest.approx(want.low, abs=1e-12) and rate.high == pytest.approx(want.high, abs=1e-12)
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_a_rate_of_nothing_is_not_measured() -> None:
    rate = Rate(k=0, n=0)
    assert rate.value is None and (rate.low, rate.high) == (0.0, 1.0)
    assert str(rate) == "not measured (n 0)"
    assert str(Rate(k=1, n=2)) == "50.0 % [9.5, 90.5] n 2"


@pytest.mark.parametrize(("k", "n"), [(3, 2), (1, 0), (-1, 2), (0, -1), (0.5, 2)])
def test_impossible_rates_are_refused(k: Any, n: Any) -> None:
    with pytest.raises(ValidationError):
        Rate(k=k, n=n)


def test_the_derived_values_of_a_read_rate_are_computed_anew() -> None:
    forged = json.dumps({"k": 1, "n": 100, "value": 1.0, "low": 0.99, "high": 1.0})
    assert Rate.model_validate_json(forged) == Rate(k=1, n=100)
    assert Rate.model_validate_json(forged).value == 0.01
    assert json.loads(Rate(k=1, n=4).model_dump_json()).keys() == {"k", "n", "value", "low", "high"}


@pytest.mark.parametrize("evidence", EVIDENCE, ids=lambda evidence: evidence.kind)
def test_evidence_survives_json(evidence: Any) -> None:
    text = evidence.model_dump_json()
    back: Any = TypeAdapter(Evidence).validate_json(text)
    assert type(back) is type(evidence) and back == evidence
    assert back.model_dump_json() == text


def test_arrays_of_a_candidate_stay_out_of_the_json() -> None:
    plain = json.loads(CANDIDATE.model_dump_json())
    assert "mask" not in plain and "pattern" not in plain and "array" not in repr(CANDIDATE)
    other = CANDIDATE.model_copy(update={"mask": None})
    assert (
        other == CANDIDATE
        and hash(other) == hash(CANDIDATE)
        and CANDIDATE.model_copy(update={"size": 1.0}) != CANDIDATE
    )


def test_a_record_survives_json() -> None:
    record = a_record()
    back = Record.model_validate_json(record.to_json())
    assert back == record and back.to_json() == record.to_json() and record.to_json().endswith("}\n")
    plain = json.loads(a_record(results=(), artifacts={}).to_json())
    assert plain["results"] == [] and plain["cautions"] == [] and plain["artifacts"] == {}
    assert plain["coverage"]["failed"] == []


def every_part(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every object in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = [path] if isinstance(value, dict) else []
    return own + [found for key, part in inner for found in every_part(part, (*path, key))]


FREE = {"config", "digests", "params", "measures", "rates", "before", "after", "selected", "artifacts"}
"""Dicts whose keys are data."""


def test_unknown_keys_are_forbidden_everywhere() -> None:
    whole = json.loads(a_record().to_json())
    paths = [path for path in every_part(whole) if not (path and path[-1] in FREE)]
    assert len(paths) > 30
    for path in paths:
        changed = json.loads(json.dumps(whole))
        part = changed
        for key in path:
            part = part[key]
        part["surplus"] = 1
        with pytest.raises(ValidationError, match="surplus"):
            Record.model_validate(changed)


def test_records_are_frozen_and_finite() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        HALF.k = 3  # type: ignore[misc]  # the point of the test
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError):
            ClassScore(label=0, score=value)
        with pytest.raises(ValidationError):
            ClassScore(label=0, score=None, measures={"a": value})


@pytest.mark.parametrize("subject", ["model", "class:7", "pair:3>7", "layer:a.b", "sample:x", "file:/a", "phrase:t"])
def test_subjects_are_typed_text(subject: str) -> None:
    assert CANDIDATE.model_validate({**CANDIDATE.model_dump(), "subject": subject}).subject == subject
    for wrong in ("", "class:", "klass:3", f" {subject}"):
        with pytest.raises(ValidationError):
            CANDIDATE.model_validate({**CANDIDATE.model_dump(), "subject": wrong})


def test_codes_have_their_form() -> None:
    found = a_record().results[0].findings[0].model_dump()
    for code in ("OS20", "XX201", "OS2011", ""):
        with pytest.raises(ValidationError):
            Finding.model_validate({**found, "code": code})
