"""What the records of examinations and trainings say of a model, as parts of a BOM."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ostiary.core.catalog import method_class
from ostiary.core.errors import ConfigError
from ostiary.core.records import MethodResult, ModelEvidence, Rate, RatesEvidence, Record, RepairEvidence
from ostiary.provenance.bom import records as cdx
from ostiary.provenance.bom.complete import HARDWARE
from ostiary.provenance.bom.facts import DataSet
from ostiary.provenance.refusal import Reason, Refused

MAKING, EXAMINING = ("train", "harden", "repair"), ("scan", "repair")
KINDS = (*MAKING, "scan", "evaluate")
WORST = ("backdoor", "suspect", "incomplete", "none-found")
ADVERSE = WORST[:2]
CLAIMS = {
    "backdoor": "backdoor: confirmed on held-out trusted data",
    "suspect": "suspect: something was found, and not confirmed",
    "incomplete": "incomplete: not everything that was asked for was examined",
    "none-found": "none-found: no evidence of a backdoor was found, within the scope that the evidence tells",
}
REASONING = (
    "Evidence are the examinations that found nothing or did not finish, counter-evidence those that found something. "
    "None-found is no proof of absence: the model card's technical limitations say what the methods do not see."
)
MODEL_REF = "model"


def bind(records: Sequence[Record], weights: str) -> tuple[Record, ...]:
    """The records in order of time, once each is about the model with these weights, or how it came to be.

    `weights` is the digest that records have of a loaded model. Examinations and evaluations must be of this very
    model, trainings and repairs of it or of what it was repaired from.

    Raises ConfigError for a kind that says nothing of a model, Refused (OS796) for a record of another model.
    """
    if odd := [one for one in records if one.kind not in KINDS]:
        raise ConfigError(f"record {odd[0].id} is of a {odd[0].kind}", hint=f"a BOM takes {', '.join(KINDS)}")
    known = {weights}
    repairs = [one for one in records if one.kind == "repair"]
    for _ in repairs:
        known |= {one.digests["model"] for one in repairs if one.digests.get("repaired") in known}
    wrong = [one for one in records if made_by(one) not in (known if one.kind in MAKING else {weights})]
    if wrong:
        text = "it is about other weights"
        raise Refused([Reason("OS796", f"record {one.id} ({one.kind})", text) for one in wrong])
    return tuple(sorted(records, key=lambda one: (one.created, one.id)))


def made_by(record: Record) -> str | None:
    """The digest of the weights that a record is about: those it left behind, of a repair."""
    return record.digests.get("repaired" if record.kind == "repair" else "model")


def data_sets(records: Sequence[Record], given: Sequence[DataSet]) -> tuple[DataSet, ...]:
    """The data sets of trainings and evaluations, each with the manifest of its name, and those given beside, by name.

    Raises Refused (OS796) where a manifest and a record of one name tell different numbers of samples.
    """
    found = {one.name: one for one in given}
    if len(found) < len(given):
        raise ConfigError("one name of --data is given twice", hint="each set must have a name of its own")
    for record in sorted(records, key=lambda one: one.kind == "evaluate"):
        told = _told_set(record)
        if told is None:
            continue
        old = found.get(told.name)
        if old is not None and old.digest not in (None, told.digest):
            told = DataSet(f"{told.name} ({record.id})", None, told.samples, told.digest, told.role)
        elif old is not None:
            if None not in (old.samples, told.samples) and old.samples != told.samples:
                text = f"the manifest has {old.samples} samples, record {record.id} {told.samples}"
                raise Refused([Reason("OS796", told.name, text)])
            role = old.role if old.digest else told.role
            told = DataSet(told.name, old.root, told.samples, told.digest, role)
        found[told.name] = told
    return tuple(found[name] for name in sorted(found))


def set_of(record: Record, sets: Sequence[DataSet]) -> DataSet | None:
    """The data set of a record among `sets`."""
    digest = record.digests.get("data")
    return next((one for one in sets if digest is not None and one.digest == digest), None)


def metrics(records: Sequence[Record], weights: str) -> tuple[cdx.Metric, ...]:
    """Every rate with its interval, and every score, that records measured on the model itself."""
    return tuple(metric for one in records if made_by(one) == weights for metric in _metrics(one))


def limitations(records: Sequence[Record], weights: str) -> tuple[str, ...]:
    """What the methods that examined the model do not see, which of them did not finish, and all cautions."""
    found: list[str] = []
    for record in records:
        if made_by(record) != weights:
            continue
        for result in record.results:
            if ".scan." in f".{result.method}":
                found += _blind_spots(result.method)
                found += [f"{result.method}: {result.status}, {result.reason}"] if result.status != "ok" else []
        cautions = (*record.cautions, *(one for result in record.results for one in result.cautions))
        found += [f"{one.code}: {one.text}" for one in cautions]
    return tuple(dict.fromkeys(found))


def workflows(records: Sequence[Record], sets: Sequence[DataSet], weights: str) -> tuple[cdx.Workflow, ...]:
    """The runs that made the model: data in, settings and seed, what they ran on."""
    return tuple(_workflow(one, sets, weights) for one in records if one.kind in MAKING)


def declarations(records: Sequence[Record], weights: str, days: int, assessor: str) -> cdx.Declarations | None:
    """What examinations amount to, with evidence that expires `days` after it was made; None without examinations."""
    judged = [one for one in records if one.kind in EXAMINING and made_by(one) == weights and one.verdict]
    if not judged:
        return None
    verdict = next(word for word in WORST if any(one.verdict == word for one in judged))
    against = tuple(f"evidence:{one.id}" for one in judged if one.verdict in ADVERSE)
    claim = cdx.Claim(
        bom_ref="claim:backdoors",
        target=MODEL_REF,
        predicate=CLAIMS[verdict],
        reasoning=REASONING,
        evidence=tuple(f"evidence:{one.id}" for one in judged if one.verdict not in ADVERSE),
        counter_evidence=against,
    )
    who = cdx.Assessor(bom_ref="assessor", third_party=False, organization=cdx.Organization(name=assessor))
    mapped = cdx.AttestedClaims(**{"counter_claims" if against else "claims": (claim.bom_ref,)})
    attestation = cdx.Attestation(summary=CLAIMS[verdict], assessor=who.bom_ref, map=(mapped,))
    return cdx.Declarations(
        assessors=(who,),
        attestations=(attestation,),
        claims=(claim,),
        evidence=tuple(_evidence(one, days) for one in judged),
    )


def portable(value: Any) -> str:
    """A setting as text, without the folders of an absolute path: they name machines and people."""
    if isinstance(value, str):
        if re.match(r"[A-Za-z]:[\\/]|\\\\", value):
            return PureWindowsPath(value).name
        return PurePosixPath(value).name if value.startswith(("/", "~")) else value
    if isinstance(value, dict):
        return json.dumps({key: portable(one) for key, one in value.items()}, sort_keys=True, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return json.dumps([portable(one) for one in value], ensure_ascii=False)
    return json.dumps(value)


def _told_set(record: Record) -> DataSet | None:
    told = record.config.get("data")
    if record.kind not in ("train", "harden", "evaluate") or not isinstance(told, dict):
        return None
    samples = told.get("samples")
    return DataSet(
        portable(str(told.get("name"))),
        samples=samples if type(samples) is int else None,
        digest=record.digests.get("data"),
        role="testing" if record.kind == "evaluate" else "training",
    )


def _metrics(record: Record) -> Iterator[cdx.Metric]:
    # Of a training the record names what it learnt from, which is not what the rates were measured on.
    roles = () if record.kind in ("train", "harden") else ("data", "trusted")
    on = next((portable(str(one["name"])) for role in roles if (one := _named(record, role))), "")
    for result in record.results:
        where = ", ".join(part for part in (on, result.method, f"record {record.id}") if part)
        evidence = result.evidence
        if isinstance(evidence, RatesEvidence):
            yield from _rates(evidence.rates, where)
            yield from (cdx.Metric(type=name, value=f"{x:.6g}", slice=where) for name, x in evidence.measures.items())
        elif isinstance(evidence, RepairEvidence):
            yield from _rates(evidence.after, f"after repair, {where}")
        elif isinstance(evidence, ModelEvidence):
            yield from _scan_metrics(result, evidence, where)
    known = record.calibration
    if known is not None and known.false_positive_rate is not None:
        name = f"false alarms on {known.models} reference models"
        yield from _rates({name: known.false_positive_rate}, f"{known.id}, record {record.id}")


def _named(record: Record, role: str) -> Mapping[str, Any] | None:
    found = record.config.get(role)
    return found if isinstance(found, dict) and "name" in found else None


def _scan_metrics(result: MethodResult, evidence: ModelEvidence, where: str) -> Iterator[cdx.Metric]:
    if evidence.score is not None:
        yield cdx.Metric(type=f"score of {result.method}", value=f"{evidence.score:.6g}", slice=where)
    named = {finding.subject for finding in result.findings}
    for one in evidence.candidates:
        if one.subject in named:
            name = f"flip rate of the recovered trigger ({one.form})"
            yield from _rates({name: one.flip_held_out}, f"{one.subject}, {where}")
    for number, phrase in enumerate(evidence.phrases):
        if phrase.fires is not None:
            yield from _rates({f"prompts with recovered phrase {number + 1} that fire": phrase.fires}, where)


def _rates(rates: Mapping[str, Rate], where: str) -> Iterator[cdx.Metric]:
    for name, rate in rates.items():
        if rate.value is not None:
            interval = cdx.ConfidenceInterval(lower_bound=f"{rate.low:.6g}", upper_bound=f"{rate.high:.6g}")
            where_n = f"{where}, n {rate.n}"
            yield cdx.Metric(type=name, value=f"{rate.value:.6g}", slice=where_n, confidence_interval=interval)


def _blind_spots(method: str) -> list[str]:
    try:
        spots = method_class("scan", method).card.blind_spots
    except ConfigError:
        return [f"{method}: what it does not see is not known here"]
    return [f"{method} does not see: {'; '.join(spots)}"] if spots else []


def _workflow(record: Record, sets: Sequence[DataSet], weights: str) -> cdx.Workflow:
    recipe = record.config.get("recipe")
    settings: dict[str, Any] = {"seed": record.seed, **(recipe if isinstance(recipe, dict) else {})}
    for result in record.results:
        if result.method.split(".")[-2:-1] != ["scan"]:
            settings |= {f"{result.method}.{key}": one for key, one in result.params.items() if one is not None}
    parameters = tuple(cdx.Parameter(name=key, value=portable(settings[key])) for key in sorted(settings))
    inputs = [cdx.Input(parameters=parameters)]
    if (used := set_of(record, sets)) is not None:
        inputs.append(cdx.Input(resource=cdx.Reference(ref=f"data:{used.name}")))
    environment = record.environment
    ran = f"{environment.device}, {environment.cpu}, {environment.threads} threads"
    told = {"ostiary:weights": made_by(record) or "", HARDWARE: ran}
    if record.kind == "repair":
        told["ostiary:weightsBefore"] = record.digests["model"]
    told |= {f"ostiary:{name}": getattr(environment, name) for name in ("ostiary", "python", "torch", "platform")}
    return cdx.Workflow(
        bom_ref=f"workflow:{record.id}",
        uid=record.id,
        name=record.kind,
        description=", ".join(record.coverage.asked),
        task_types=("build",),
        inputs=tuple(inputs),
        outputs=(cdx.Output(resource=cdx.Reference(ref=MODEL_REF)),) if made_by(record) == weights else (),
        time_start=record.created,
        properties=tuple(cdx.Property(name=key, value=value) for key, value in told.items()),
    )


def _evidence(record: Record, days: int) -> cdx.Evidence:
    coverage = record.coverage
    left = [f"{one.method}: {one.status}, {one.reason}" for one in record.results if one.status != "ok"]
    trusted = _named(record, "trusted")
    told = {
        "verdict": record.verdict or "",
        "finished": ", ".join(coverage.ok),
        "not finished": "\n".join(left),
        "findings": "\n".join(f"{one.code} {one.message}" for result in record.results for one in result.findings),
        "classes": str(len(coverage.classes)) if coverage.classes else "",
        "limits from": "" if record.calibration is None else record.calibration.description,
        "trusted data": ""
        if trusted is None
        else f"{portable(str(trusted['name']))}, {trusted.get('samples')} samples",
        "digest of the trusted data": record.digests.get("trusted", ""),
        "digest of the weights": made_by(record) or "",
        "seed": str(record.seed),
        "record": record.id,
        "sha256 of the record": hashlib.sha256(record.to_json().encode()).hexdigest(),
        "ostiary": record.environment.ostiary,
    }
    expires = datetime.fromisoformat(record.created) + timedelta(days=days)
    return cdx.Evidence(
        bom_ref=f"evidence:{record.id}",
        property_name=f"ostiary:{record.kind}",
        description=f"{record.kind} {record.id}: {CLAIMS[record.verdict or 'incomplete']}",
        data=tuple(
            cdx.Datum(name=name, contents=cdx.Attached(attachment=cdx.Attachment(content=text)))
            for name, text in told.items()
            if text
        ),
        created=record.created,
        expires=expires.isoformat().replace("+00:00", "Z"),
    )
