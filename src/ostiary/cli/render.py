"""A record as plain text for a terminal."""

import click

from ostiary.core.records import (
    GuardEvidence,
    MethodResult,
    ModelEvidence,
    RatesEvidence,
    Record,
    RepairEvidence,
    RoundsEvidence,
    SampleEvidence,
)
from ostiary.core.text import one_line

COLOURS = {"backdoor": "red", "suspect": "yellow", "incomplete": "yellow", "note": None, "none-found": None}
MAX_FINDINGS = 20


def render_text(record: Record) -> str:
    """The record in a screenful: subject, methods, findings, cautions, verdict, where it is kept."""
    lines = [_subject(record)]
    lines += [_method(result, len(record.coverage.classes)) for result in record.results]
    if (known := record.calibration) is not None and known.models:
        alarms = f"; false alarms on them {known.false_positive_rate}" if known.false_positive_rate else ""
        lines.append(f"  limits from {known.models} reference models ({known.id}){alarms}")
    for result in record.results:
        lines += _evidence(result)
    cautions = dict.fromkeys((*record.cautions, *(c for result in record.results for c in result.cautions)))
    lines = [one_line(line) for line in lines] + _findings(record)
    lines += [one_line(f"{caution.code} caution   {caution.text}") for caution in cautions]
    if "refused" in record.config:
        lines.append(click.style(f"refused: {record.config['refused']}; nothing was written", fg="yellow"))
    elif "out" in record.config:
        lines.append(one_line(f"wrote {record.config['out']}"))
    if record.verdict is not None:
        lines.append(click.style(f"verdict: {verdict_line(record)}", fg=COLOURS[record.verdict], bold=True))
    lines.append(f"record {record.id}  (`ostiary report {record.id} -o report.html` draws it)")
    return "\n".join(lines)


def verdict_line(record: Record) -> str:
    """The verdict in words."""
    coverage = record.coverage
    tried = len(coverage.ok) + len(coverage.partial) + len(coverage.skipped) + len(coverage.failed)
    skipped = f", {len(coverage.skipped)} skipped" if coverage.skipped else ""
    counts = f"{len(coverage.ok)} of {tried} methods{skipped}"
    words = {
        "backdoor": "backdoor, confirmed on held-out trusted data",
        "suspect": "suspect, not confirmed",
        "none-found": f"none-found, no evidence found by {counts}",
        "incomplete": f"incomplete, not all was examined; finished: {counts}",
    }
    found = words[record.verdict or "incomplete"]
    if record.kind != "repair":
        return found
    scanned = any("scan" in result.method.split(".") for result in record.results)
    return f"{found} (scan of the repaired model)" if scanned else "incomplete, no repaired model was made"


def _subject(record: Record) -> str:
    parts = [f"{record.kind}  {record.subject}"]
    for role in ("data", "trusted"):
        named = record.config.get(role)
        if isinstance(named, dict):
            parts.append(f"{role} {named['name']}, {named['samples']} samples")
    # A language model and a set of chats have none.
    if record.coverage.classes and record.config.get("task") != "chat":
        parts.append(f"{len(record.coverage.classes)} classes")
    if record.data_alone:
        parts.append("no model looked at")
    return "   ".join(parts)


def _method(result: MethodResult, classes: int) -> str:
    by_class = sum(subject.startswith("class:") for subject in result.examined)
    parts = len(result.examined)
    whole = f"{parts} part{'' if parts == 1 else 's'}" if parts else "-"
    examined = f"{by_class}/{classes} classes" if by_class else whole
    line = f"  {result.method:<30} {result.status:<8} {examined:<15} {result.seconds:7.1f} s"
    return f"{line}  {result.reason}" if result.reason else line


def _evidence(result: MethodResult) -> list[str]:
    evidence = result.evidence
    if isinstance(evidence, RepairEvidence):
        rows = [f"  {name}: {rate} -> {evidence.after[name]}" for name, rate in evidence.before.items()]
        return rows + [f"  {name}: {text}" for name, text in evidence.selected.items()]
    if isinstance(evidence, RoundsEvidence):
        rows = [f"  {name}: {rate}" for name, rate in evidence.rates.items()]
        return rows + [f"  {name}: {value:.4g}" for name, value in evidence.measures.items()]
    if isinstance(evidence, RatesEvidence):
        rows = [f"  {name}: {rate}" for name, rate in evidence.rates.items()]
        rows += [f"  {name}: {value:.6g}" for name, value in evidence.measures.items()]
        return rows + [f"  {name}: {text}" for name, text in evidence.selected.items()]
    if isinstance(evidence, GuardEvidence):
        rows = [f"  limit {evidence.threshold:.4f}"]
        rows += [f"  false rejection on trusted inputs: {evidence.false_rejection}"] if evidence.false_rejection else []
        return rows + ([f"  flagged: {evidence.flagged}"] if evidence.flagged else [])
    if isinstance(evidence, ModelEvidence):
        return [f"  {result.method}: {name} {value:.4g}" for name, value in evidence.measures.items()]
    if isinstance(evidence, SampleEvidence):
        share = f"{100 * evidence.suspected / max(1, evidence.n):.2g} %"
        counts = f"{evidence.suspected} of {evidence.n} samples suspected ({share}), {evidence.scored} scored"
        return [f"  {result.method}: {counts}"]
    return []


def _findings(record: Record) -> list[str]:
    findings = [finding for result in record.results for finding in result.findings]
    lines = [
        click.style(one_line(f"{f.code} {f.level:<9} {f.message}"), fg=COLOURS[f.level])
        for f in findings[:MAX_FINDINGS]
    ]
    more = len(findings) - MAX_FINDINGS
    return [*lines, f"  and {more} more findings in the record"] if more > 0 else lines
