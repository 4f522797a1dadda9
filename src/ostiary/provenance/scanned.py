"""What a scan of these very bytes found: our predicate, made of a record.

It says what was looked for and what was not, and it ends. What it never says is that a model is harmless.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ostiary.core.card import FAMILIES, Card, Family, Modality
from ostiary.core.errors import ConfigError
from ostiary.core.records import Finding, MethodResult, ModelEvidence, Rate, Record, Verdict
from ostiary.provenance.attested import Said
from ostiary.provenance.envelope import first_error
from ostiary.provenance.manifest import Manifest
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import ROOT, Subject, named
from ostiary.provenance.strict import MAX_DAYS, Hex, canonical

SCAN = "ostiary:scan/v1"
SVR = "https://in-toto.io/attestation/svr/v0.1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
Form = Literal["scan", "svr", "test-result"]
FORMS: tuple[Form, ...] = get_args(Form)
EXPIRES_DAYS = 90
ADVERSE: tuple[Verdict, ...] = ("backdoor", "suspect")
SCANS: Mapping[str, str] = {"scan": "model", "repair": "repaired"}
"""Kinds of records that hold a scan, and the name of the digest of the model that was scanned."""


class _Part(BaseModel):
    """Fields of later minor versions are passed over: they can raise no trust."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Scanner(_Part):
    """What scanned: name, version and the digest of its settings."""

    id: Annotated[str, Field(max_length=200)]
    version: Annotated[str, Field(max_length=200)]
    configSha256: Hex  # noqa: N815 - JSON's habit


class Scope(_Part):
    """What was looked for, in which classes, beside which trusted samples; and what nothing looked for."""

    modality: Modality
    familiesCovered: tuple[Family, ...]  # noqa: N815
    familiesNotCovered: tuple[Family, ...]  # noqa: N815
    classes: Annotated[int, Field(ge=0)]
    trustedSha256: Hex | None = None  # noqa: N815
    trustedSamples: int | None = None  # noqa: N815


class Found(_Part):
    """One finding: its code, how sure, about what, and the measure with its limit."""

    code: str
    level: Literal["backdoor", "suspect", "note"]
    confirmed: bool
    subject: str
    message: str
    score: float | None = None
    threshold: float | None = None


class Tried(_Part):
    """One method: how it was set, from which measures on it accuses, how it ended and what it measured."""

    method: str
    version: str
    params: dict[str, Any]
    limits: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    status: Literal["ok", "partial", "skipped", "failed"]
    reason: str | None = None
    score: float | None = None
    findings: tuple[Found, ...] = ()
    blindSpots: tuple[str, ...] = ()  # noqa: N815


class Limits(_Part):
    """Where the limits come from, and how often they accuse a model that nobody attacked, where that is known."""

    id: str
    models: int
    falsePositiveRate: dict[str, float | int | None] | None = None  # noqa: N815


class Scan(_Part):
    """The predicate. `base` is the root of the model that an adapter was merged into for the scan."""

    scanner: Scanner
    name: str
    omsRoot: Hex  # noqa: N815
    base: Hex | None = None
    modelSha256: Hex  # noqa: N815
    scope: Scope
    results: Annotated[tuple[Tried, ...], Field(min_length=1)]
    calibration: Limits | None = None
    verdict: Verdict
    counterEvidence: tuple[Found, ...]  # noqa: N815
    cautions: tuple[str, ...] = ()
    seed: int
    environment: dict[str, str | int]
    scanned: AwareDatetime
    created: AwareDatetime
    expires: AwareDatetime
    recordSha256: Hex  # noqa: N815

    def methods(self) -> frozenset[str]:
        """The methods that examined all they were to examine."""
        return frozenset(one.method for one in self.results if one.status == "ok")

    def told(self) -> frozenset[str]:
        """The methods that have a say: those, and whichever accuses, cut short or not."""
        accusing = {one.method for one in self.results if any(found.level in ADVERSE for found in one.findings)}
        return self.methods() | accusing


def subject_of(manifest: Manifest, name: str) -> Subject:
    """The model as a subject: by our root, and by the SHA-256 of its only file, which other engines know.

    Raises ConfigError for a name that cannot be signed.
    """
    digests = {ROOT: manifest.root.hex()}
    if len(manifest.files) == 1 and manifest.algorithm == "sha256" and not manifest.empty_folders:
        digests["sha256"] = manifest.files[0].digest.hex()
    return named(name, digests)


def scan_predicate(
    record: Record,
    manifest: Manifest,
    name: str,
    *,
    base: Manifest | None = None,
    days: float = EXPIRES_DAYS,
    now: datetime | None = None,
) -> dict[str, Any]:
    """What the scan in `record` found, in the words of our predicate; it expires `days` after now.

    Families count as covered where a method that looks for them examined every class. Raises ConfigError for a record
    that holds no finished scan, and for an end that is not later or more than a hundred years away.
    """
    if not 0 < days <= MAX_DAYS:
        raise ConfigError(f"a statement cannot hold for {days:g} days", hint=f"more than 0, and at most {MAX_DAYS}")
    moment = (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    if record.kind not in SCANS or record.verdict is None:
        raise ConfigError(f"record {record.id} is of `{record.kind}`, not of a scan", hint="run `ostiary scan` first")
    results = [result for result in record.results if ".scan." in f".{result.method}"]
    if not results or record.interrupted:
        raise ConfigError(f"record {record.id} holds no finished scan", hint="run `ostiary scan` again")
    cards = {result.method: _card(result.method) for result in results}
    modality: Modality = "text" if any(one.startswith("text.") for one in cards) else "images"
    covered = {
        family for result in results if _examined_all(result, record) for family in cards[result.method].families
    }
    trusted = record.config.get("trusted")
    found = [finding for result in results for finding in result.findings]
    made = {
        "scanner": {"id": "ostiary", "version": record.environment.ostiary, "configSha256": _sha256(record.config)},
        "name": name,
        "omsRoot": manifest.oms_root.hex(),
        "base": base.root.hex() if base is not None else None,
        "modelSha256": record.digests[SCANS[record.kind]],
        "scope": {
            "modality": modality,
            "familiesCovered": [family for family in FAMILIES[modality] if family in covered],
            "familiesNotCovered": [family for family in FAMILIES[modality] if family not in covered],
            "classes": len(record.coverage.classes),
            "trustedSha256": record.digests.get("trusted"),
            "trustedSamples": trusted["samples"] if isinstance(trusted, dict) else None,
        },
        "results": [_tried(result, cards[result.method], record) for result in results],
        "calibration": _limits(record),
        "verdict": record.verdict,
        "counterEvidence": [_found(one) for one in found if one.level in ADVERSE],
        "cautions": [f"{one.code} {one.text}" for one in record.cautions],
        "seed": record.seed,
        "environment": record.environment.model_dump(mode="json"),
        "scanned": record.created,
        "created": moment.isoformat().replace("+00:00", "Z"),
        "expires": (moment + timedelta(days=days)).isoformat().replace("+00:00", "Z"),
        "recordSha256": hashlib.sha256(record.to_json().encode()).hexdigest(),
    }
    return {key: value for key, value in made.items() if value is not None}


def svr_predicate(scan: Mapping[str, Any]) -> dict[str, Any]:
    """The Simple Verification Result of a scan: https://github.com/in-toto/attestation, svr v0.1.

    It can only list what passed, so that there is none of a scan that found something or examined too little: raises
    ConfigError.
    """
    if scan["verdict"] != "none-found":
        raise ConfigError(
            f"a simple verification result has no place for the verdict '{scan['verdict']}'",
            hint="--form scan, or test-result",
        )
    looked = [f"OSTIARY_LOOKED_FOR_{family.upper().replace('-', '_')}" for family in scan["scope"]["familiesCovered"]]
    scanner = scan["scanner"]
    return {
        "verifier": {"id": f"ostiary:{scanner['version']}", "configSha256": scanner["configSha256"]},
        "timeCreated": scan["created"],
        "properties": ["OSTIARY_NO_BACKDOOR_FOUND_BY_THESE_METHODS", *looked],
    }


def result_predicate(scan: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a Test Result v0.1, one test a method; methods that examined a part or were skipped are warnings.

    A scan that examined too little has failed like one that found something: an engine may take a warning for a pass.
    """
    results = scan["results"]
    accused = {one["method"] for one in results if any(f["level"] in ADVERSE for f in one["findings"])}
    failed = [one["method"] for one in results if one["method"] in accused or one["status"] == "failed"]
    warned = [
        one["method"] for one in results if one["status"] in ("partial", "skipped") and one["method"] not in accused
    ]
    return {
        "result": "PASSED" if scan["verdict"] == "none-found" else "FAILED",
        "configuration": [{"name": "record.json", "digest": {"sha256": scan["recordSha256"]}}],
        "passedTests": [one["method"] for one in results if one["method"] not in (*failed, *warned)],
        "warnedTests": warned,
        "failedTests": failed,
    }


def read_scan(said: Said, where: str) -> Scan:
    """The predicate of a statement that was heard. Raises Refused (OS730) for missing or odd fields."""
    try:
        found = Scan.model_validate_json(canonical(dict(said.predicate)), strict=True)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"it is no scan of version 1: {first_error(error)}")]) from error
    if len(said.subjects) != 1 or said.subjects[0].name != found.name or ROOT not in said.subjects[0].digest:
        raise Refused(
            [Reason("OS730", where, "its subject is not one model by its root and the name of its predicate")]
        )
    adverse = bool(found.counterEvidence) or any(
        one.level in ADVERSE for tried in found.results for one in tried.findings
    )
    if adverse != (found.verdict in ADVERSE):
        raise Refused([Reason("OS730", where, f"its verdict '{found.verdict}' contradicts its findings")])
    return found


def _card(method: str) -> Card:
    from ostiary.core.catalog import method_class

    card: Card = method_class("scan", method).card
    return card


def _examined_all(result: MethodResult, record: Record) -> bool:
    every = {f"class:{label}" for label in range(len(record.coverage.classes))} or {"model"}
    whole = every <= set(result.examined) or "model" in result.examined
    return result.status == "ok" and whole


def _tried(result: MethodResult, card: Card, record: Record) -> dict[str, Any]:
    score = result.evidence.score if isinstance(result.evidence, ModelEvidence) else None
    return {
        "method": result.method,
        "version": result.version,
        "params": result.params,
        "limits": record.config.get("limits", {}).get(result.method, {}),
        "status": result.status,
        "reason": result.reason,
        "score": score,
        "findings": [_found(one) for one in result.findings],
        "blindSpots": list(card.blind_spots),
    }


def _found(finding: Finding) -> dict[str, Any]:
    return finding.model_dump(mode="json", include=set(Found.model_fields))


def _limits(record: Record) -> dict[str, Any] | None:
    known = record.calibration
    if known is None:
        return None
    alarms = known.false_positive_rate
    return {
        "id": known.id,
        "models": known.models,
        "falsePositiveRate": None if alarms is None else Rate.model_validate(alarms).model_dump(mode="json"),
    }


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
