"""What a run came to, in the terms of machines that gate on it: checks, issues, and what was left out.

SARIF and JUnit are made of this alone, so that a record and a decision are told in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import quote

from ostiary.core.records import Finding, MethodResult, Record, Status
from ostiary.report.words import show, subject_name

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
UNFINISHED = "OS736"
"""The code of what stands where a run examined less than was asked, so that it is no empty pass."""
NOTHING_WRITTEN = "OS737"
PASSED = ("accepted", "admitted", "exempted")
"""Decisions that let a model through; any other, one that is not known here among them, does not."""

_SEVERITY: dict[str, Severity] = {"backdoor": "error", "suspect": "warning", "note": "note"}
# Reasons with these codes name a file of the model; the others a key, a store, a clock.
_OF_FILES = ("OS1", "OS702", "OS703", "OS704", "OS706", "OS707", "OS708", "OS709", "OS76")


class Ground(Protocol):
    """One reason of a decision."""

    @property
    def code(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def message(self) -> str: ...


class Ruling(Protocol):
    """What came of one rule of a policy."""

    @property
    def rule(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def reasons(self) -> Sequence[Ground]: ...


class Decided(Protocol):
    """What is read of a decision (`ostiary.provenance.decision.Decision`, or another of the same form)."""

    @property
    def kind(self) -> str: ...
    @property
    def ostiary(self) -> str: ...
    @property
    def created(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def decision(self) -> str: ...
    @property
    def root(self) -> str | None: ...
    @property
    def reasons(self) -> Sequence[Ground]: ...
    @property
    def exemption(self) -> str | None: ...
    @property
    def rules(self) -> Sequence[Ruling]: ...


@dataclass(frozen=True, slots=True)
class Issue:
    """Something against a subject: `about` what it is about, `uri` where that lies, relative to the working folder.

    `digest` is that of the bytes it was found in, where these are known; `key` stands for `about` in the fingerprint
    where `about` names folders. `measured` are the numbers it rests on, `excuse` says why it was let pass all the same.
    """

    code: str
    severity: Severity
    about: str
    message: str
    uri: str
    digest: str = ""
    key: str = ""
    measured: tuple[tuple[str, float | bool], ...] = ()
    excuse: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One method, or one kind of decision: how it ended, what it examined, and what it has against it."""

    name: str
    status: Status
    reason: str | None = None
    examined: tuple[str, ...] = ("model",)
    issues: tuple[Issue, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one verb, by one version of ostiary; `gaps` say what it left out of what was asked, if anything."""

    verb: str
    version: str
    subject: str
    uri: str
    created: str
    checks: tuple[Check, ...]
    gaps: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def issues(self) -> tuple[Issue, ...]:
        """All of them, in order of the checks."""
        return tuple(issue for check in self.checks for issue in check.issues)


def of_record(record: Record, *, named: bool = False) -> Outcome:
    """What a record came to; `named` says that its methods were asked for by name, so that a skip is a gap."""
    uri = relative_uri(_path(record))
    digest = record.digests.get("model") or next(iter(record.digests.values()), "")
    gaps = tuple(_gaps(record, named))
    checks = [_check(result, record, uri, digest) for result in record.results]
    if gaps:
        checks.append(unfinished(record.kind, gaps, uri, digest))
    if "refused" in record.config:
        message = f"nothing was written: {record.config['refused']}"
        issue = Issue(NOTHING_WRITTEN, "error", "model", show(message), uri, digest)
        checks.append(Check(f"{record.kind}.limits", "ok", issues=(issue,)))
    told = (*record.cautions, *(caution for result in record.results for caution in result.cautions))
    notes = tuple(dict.fromkeys((caution.code, show(caution.text)) for caution in told))
    return Outcome(
        record.kind,
        record.environment.ostiary,
        show(relative(record.subject)),
        uri,
        record.created,
        tuple(checks),
        gaps,
        notes,
    )


def of_decision(found: Decided) -> Outcome:
    """What a decision about a model came to: one check, or one for each rule of the policy.

    Whatever is neither a pass nor a refusal with reasons is told as unfinished.
    """
    uri = relative_uri(found.subject)
    passed = found.decision in PASSED
    checks = [_ruled(ruling, found, uri) for ruling in found.rules]
    ruled = [reason for ruling in found.rules for reason in ruling.reasons]
    if (left := [reason for reason in found.reasons if reason not in ruled]) or not checks:
        # Nothing passes beside a refusal.
        checks.append(Check(found.kind, "ok", None, ("model",) if passed else (), _against(left, found, uri)))
    gaps: tuple[str, ...] = ()
    if not passed and (found.decision != "refused" or not found.reasons):
        gaps = (f"the decision is '{show(found.decision, 40)}'",)
        checks.append(unfinished(found.kind, gaps, uri, found.root or ""))
    return Outcome(found.kind, found.ostiary, show(relative(found.subject)), uri, found.created, tuple(checks), gaps)


def _ruled(ruling: Ruling, found: Decided, uri: str) -> Check:
    name = f"{found.kind}.{show(ruling.rule, 40)}"
    if ruling.outcome == "not-asked":
        return Check(name, "skipped", "the policy does not ask for it")
    if ruling.outcome == "undecided" and not ruling.reasons:
        return Check(name, "skipped", "it was not looked at, since the files could not be read")
    examined = ("model",) if ruling.outcome == "met" else ()
    return Check(name, "ok", None, examined, _against(ruling.reasons, found, uri))


def _against(reasons: Sequence[Ground], found: Decided, uri: str) -> tuple[Issue, ...]:
    excuse = show(found.exemption) if found.exemption and found.decision in PASSED else None
    return tuple(
        Issue(
            one.code,
            "error",
            show(one.subject),
            show(one.message),
            _inside(uri, one),
            found.root or "",
            excuse=excuse,
        )
        for one in reasons
    )


def relative_uri(path: str) -> str:
    """`relative` as a URI without a scheme."""
    # Quoted with its colons: one before the first slash would be read as a scheme.
    return quote(relative(path), safe="/", errors="backslashreplace")


def relative(path: str) -> str:
    """A path relative to the working folder; of what lies elsewhere, its name alone.

    Of a URL only host and path are kept: neither a password nor a key in its query.
    """
    if path.startswith(("http://", "https://")):
        parts = path.partition("://")[2].partition("?")[0].partition("#")[0]
        path = parts.rpartition("@")[2] if "@" in parts.partition("/")[0] else parts
    plain = PurePosixPath(path)
    if plain.is_absolute():
        here = PurePosixPath(Path.cwd())
        plain = plain.relative_to(here) if plain.is_relative_to(here) else PurePosixPath(plain.name)
    if ".." in plain.parts:
        plain = PurePosixPath(plain.name if plain.name != ".." else "model")
    return str(plain).strip("/") if plain.parts else "model"


def _path(record: Record) -> str:
    """The subject as the command named it; a record keeps its name alone."""
    words = (word for word in record.command[2:] if PurePosixPath(word).name == record.subject)
    return next(words, record.subject)


def _inside(uri: str, one: Ground) -> str:
    """Where a reason lies: the file in the model's folder, where it names one."""
    inner = quote(one.subject, safe="/", errors="backslashreplace")
    whole = one.subject == "model" or inner == uri.rpartition("/")[2]
    if whole or not one.code.startswith(_OF_FILES) or ".." in inner.split("/"):
        return uri
    return f"{uri}/{inner.strip('/')}"


def _gaps(record: Record, named: bool) -> Iterator[str]:
    coverage = record.coverage
    if record.interrupted:
        yield "the run was interrupted"
    for word, methods in (("failed", coverage.failed), ("stopped before their end", coverage.partial)):
        if methods:
            yield f"methods {word}: {', '.join(methods)}"
    if named and coverage.skipped:
        yield f"methods asked for by name were skipped: {', '.join(coverage.skipped)}"
    if not coverage.ok:
        yield "no method finished"
    elif record.verdict == "incomplete":
        yield "not all that was asked for was examined"


def unfinished(verb: str, gaps: Sequence[str], uri: str, digest: str = "") -> Check:
    """The check that stands for what was left out, so that the whole is no empty pass."""
    issue = Issue(UNFINISHED, "error", "model", show("; ".join(gaps), 1000), uri, digest)
    return Check(f"{verb}.coverage", "failed", issue.message, (), (issue,))


def _check(result: MethodResult, record: Record, uri: str, digest: str) -> Check:
    classes = record.coverage.classes
    issues = tuple(_issue(finding, result, classes, uri, digest) for finding in result.findings)
    reason = None if result.reason is None else show(result.reason)
    examined = tuple(subject_name(show(one), classes) for one in result.examined)
    return Check(show(result.method, 100), result.status, reason, examined or ("model",), issues, result.seconds)


def _issue(finding: Finding, result: MethodResult, classes: tuple[str, ...], uri: str, digest: str) -> Issue:
    about, message = subject_name(show(finding.subject), classes), show(f"{finding.message} ({result.method})")
    numbers = (("score", finding.score), ("threshold", finding.threshold), ("confirmed", finding.confirmed))
    measured = tuple((name, value) for name, value in numbers if value is not None)
    return Issue(finding.code, _SEVERITY[finding.level], about, message, uri, digest, measured=measured)
