"""From one record to a chapter, and from several to a comparison. Everything here is plain data."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ostiary.core.records import (
    ClassScore,
    GuardEvidence,
    MethodResult,
    ModelEvidence,
    RatesEvidence,
    Record,
    RepairEvidence,
    RoundsEvidence,
    SampleEvidence,
)
from ostiary.report import models, rates, rounds, samples, texts
from ostiary.report.blocks import (
    Block,
    Cell,
    Chapter,
    Code,
    Comparison,
    Figures,
    Mono,
    Note,
    Pairs,
    Section,
    Table,
    table,
)
from ostiary.report.models import Source
from ostiary.report.words import (
    KIND_WORDS,
    NOT_EXAMINED,
    class_name,
    digest_of,
    level_badge,
    lines,
    measure_name,
    method_name,
    next_step,
    number,
    show,
    subject_name,
    verdict_badge,
    verdict_sentence,
)

MAX_BESIDE = 6
PER_RESULT = (
    models.trigger,
    models.class_index,
    models.whole,
    texts.phrases,
    texts.triggers,
    samples.activations,
    samples.gallery,
    samples.cuts,
    rates.repair,
    rates.guard,
    rates.rates,
    rounds.rates,
    rounds.courses,
    rounds.clients,
)


def chapter(source: Source, slug: str) -> Chapter:
    """Everything one record has to say; a section appears only where the record has data for it."""
    record = source.record
    every = [coverage(record), findings(record), *_measured(source), _unreadable(source), cautions(record)]
    every += [_provenance(record), _reproduce(record)]
    sections = [replace(section, slug=f"{slug}-{i}") for i, section in enumerate(filter(None, every))]
    words, command = next_step(record)
    steps: list[Note | Code] = [Note(words)] if words else []
    if command:
        steps.append(Code(lines(command)))
    if record.interrupted:
        steps.insert(0, Note("The run was interrupted: this record is partial.", marked=True))
    facts: tuple[tuple[str, str], ...] = (
        ("subject", record.subject),
        ("digest", digest_of(record)),
        ("record", record.id),
        ("created", record.created),
    )
    if record.data_alone:
        facts += (("model", "none: the data alone were looked at"),)
    title = f"{KIND_WORDS[record.kind]}: {show(record.subject, 60)}"
    return Chapter(slug, title, verdict_badge(record), verdict_sentence(record), facts, tuple(steps), tuple(sections))


def _measured(source: Source) -> Iterator[Section | None]:
    """The sections that need evidence; the method is named where several methods left some."""
    results = [result for result in source.record.results if result.evidence is not None]
    for build in PER_RESULT:
        for result in results:
            section = build(source, result)
            if section and len(results) > 1:
                section = replace(section, title=f"{section.title} ({show(method_name(result.method), 40)})")
            yield section


def _examined(examined: tuple[str, ...], classes: int) -> str:
    kinds = {e.partition(":")[0] for e in examined}
    if kinds == {"class"}:
        return f"{len(set(examined))} of {classes} classes"
    return str(len(examined)) if examined else NOT_EXAMINED


def found_in(*results: MethodResult) -> str:
    """The number of findings, or '-' where no method looked for any."""
    looked = [r for r in results if r.findings or isinstance(r.evidence, ModelEvidence | SampleEvidence)]
    return str(sum(f.level != "note" for r in looked for f in r.findings)) if looked else NOT_EXAMINED


def _passes(result: MethodResult) -> str:
    """Images that a search sent through the network, '-' for methods that search nothing."""
    passes = result.evidence.passes if isinstance(result.evidence, ModelEvidence) else None
    return NOT_EXAMINED if passes is None else f"{passes:,}"


def coverage(record: Record) -> Section:
    """Each method that was asked, with its status; '-' where nothing was examined, 0 where nothing was found."""
    rows: list[tuple[Cell, ...]] = []
    for result in record.results:
        ran = result.status in ("ok", "partial")
        found = found_in(result)
        examined = _examined(result.examined, len(record.coverage.classes)) if ran else NOT_EXAMINED
        seconds = f"{result.seconds:,.1f}" if ran else NOT_EXAMINED
        words = (method_name(result.method), result.status, examined, found, seconds, _passes(result))
        rows.append((*words, result.reason or ""))
    done = {result.method for result in record.results}
    rows += [(method_name(m), "no result", *["-"] * 4, "") for m in record.coverage.asked if m not in done]
    head = ("method", "status", "examined", "findings", "seconds", "passes", "reason")
    return Section("Coverage", "What was not examined?", (table(head, rows, right=(3, 4, 5)),))


def findings(record: Record) -> Section | None:
    """Every finding with its score beside its limit."""
    every = [(finding, result) for result in record.results for finding in result.findings]
    if not every:
        return None
    order = {"backdoor": 0, "suspect": 1, "note": 2}
    every.sort(key=lambda pair: order[pair[0].level])
    rows: list[tuple[Cell, ...]] = [
        (
            f.code,
            level_badge(f),
            subject_name(f.subject, record.coverage.classes),
            f.message,
            f"{number(f.score)} / {number(f.threshold)}",
            method_name(result.method),
        )
        for f, result in every
    ]
    head = ("code", "level", "subject", "message", "score / limit", "method")
    return Section("Findings", "What was found?", (table(head, rows, right=(4,)),))


def cautions(record: Record) -> Section | None:
    """What may make the measurement itself invalid."""
    every = [("run", c) for c in record.cautions]
    every += [(method_name(result.method), c) for result in record.results for c in result.cautions]
    if not every:
        return None
    rows = [(c.code, c.text, where) for where, c in every]
    return Section("Cautions", "What could be wrong?", (table(("code", "caution", "from"), rows),))


def _unreadable(source: Source) -> Section | None:
    notes: list[Block] = [
        Note(f"artifact unreadable: {show(name, 60)}: {why}", marked=True)
        for name, why in source.arrays.problems.items()
    ]
    if source.album.left_out:
        notes.append(Note(f"{source.album.left_out} pictures left out to keep this file small."))
    return Section("Missing pictures", "What could not be shown?", tuple(notes[:20])) if notes else None


def _provenance(record: Record) -> Section:
    digests = [(name, value) for name, value in record.digests.items()]
    digests += [
        (f"artifact {name}", f"sha256:{a.sha256.removeprefix('sha256:')}") for name, a in record.artifacts.items()
    ]
    rows = [(name, Mono(value)) for name, value in digests]
    return Section("Provenance", "Which bytes?", (table(("what", "digest"), rows),))


def reproduce_text(record: Record) -> str:
    """The command, quoted for a shell, on one line."""
    return show(shlex.join(record.command), 2000)


def _reproduce(record: Record) -> Section:
    env = record.environment
    facts: tuple[tuple[str, Cell], ...] = (
        ("seed", str(record.seed)),
        ("versions", f"ostiary {env.ostiary}, Python {env.python}, torch {env.torch}"),
        ("hardware", f"{env.device}, {env.threads} threads, {env.cpu}"),
        ("platform", env.platform),
    )
    params = {result.method: result.params for result in record.results if result.params}
    config = json.dumps({"config": record.config, "params": params}, indent=2, sort_keys=True, default=str)
    blocks = (
        Code(lines(reproduce_text(record))),
        Pairs(facts),
        Code(lines(config), "Resolved configuration and method parameters", folded=True),
    )
    return Section("Reproduce", "Can you repeat it?", blocks)


# --- several records ---------------------------------------------------------------------------


def _strongest(source: Source, name: str, evidence: ModelEvidence) -> dict[str, Cell]:
    scored = models.ranked(evidence.per_class)
    if not scored:
        return {}
    top: ClassScore = scored[0]
    row: dict[str, Cell] = {f"{name}: most suspicious class": class_name(top.label, source.classes)}
    measures = {k: v for k, v in top.measures.items() if k not in top.rates}
    row |= {f"{name}: {measure_name(k)} of that class": number(v) for k, v in list(measures.items())[:4]}
    row |= {f"{name}: {measure_name(k)}": rate for k, rate in top.rates.items()}
    prefix = evidence.candidates[0].artifact if evidence.candidates else name
    masks = source.arrays.get(f"{prefix}-mask", 3)
    if masks is not None and 0 <= top.label < len(masks):
        for picture in source.album.picture(masks[top.label], f"mask of class {top.label}", width=96):
            row[f"{name}: mask of that class"] = picture
    return row


def key_rates(source: Source) -> dict[str, Cell]:
    """The few values by which two records are compared."""
    row: dict[str, Cell] = {}
    for result in source.record.results:
        name, evidence = method_name(result.method), result.evidence
        if isinstance(evidence, ModelEvidence) and evidence.phrases:
            first = evidence.phrases[0]
            row |= {f"{name}: strongest": show(first.phrase or first.answer or "")}
            row |= {f"{name}: fires, held out": first.fires} if first.fires is not None else {}
        elif isinstance(evidence, ModelEvidence):
            row |= _strongest(source, name, evidence)
        elif isinstance(evidence, SampleEvidence):
            row[f"{name}: suspected"] = f"{evidence.suspected:,} of {evidence.scored:,} scored"
        elif isinstance(evidence, RepairEvidence):
            row |= {f"{measure_name(k)}, before": rate for k, rate in evidence.before.items()}
            row |= {f"{measure_name(k)}, after": rate for k, rate in evidence.after.items()}
        elif isinstance(evidence, GuardEvidence):
            pairs = (("false rejection", evidence.false_rejection), ("inputs flagged", evidence.flagged))
            row |= {f"{name}: {k}": rate for k, rate in pairs if rate is not None}
        elif isinstance(evidence, RatesEvidence | RoundsEvidence):
            row |= {measure_name(k): rate for k, rate in evidence.rates.items()}
    return row


def comparison(sources: Sequence[Source]) -> Comparison:
    """All records in one table, and the key values of records of one kind as columns."""
    records = [source.record for source in sources]
    overview = table(
        ("subject", "kind", "verdict", "in words", "methods run", "findings"),
        [
            (
                r.subject,
                KIND_WORDS[r.kind],
                verdict_badge(r),
                verdict_sentence(r),
                f"{len(r.coverage.ok)} of {len(r.coverage.asked)}",
                found_in(*r.results),
            )
            for r in records
        ],
        right=(4, 5),
    )
    kinds = []
    for kind in dict.fromkeys(r.kind for r in records):
        alike = [source for source in sources if source.record.kind == kind]
        if len(alike) > 1:
            kinds.append((f"{KIND_WORDS[kind]}s side by side", _columns(alike)))
    return Comparison(overview, tuple(kinds), side_by_side(sources))


def _columns(sources: Sequence[Source]) -> Table:
    columns = [key_rates(source) for source in sources]
    rows: list[tuple[Cell, ...]] = [("verdict", *(verdict_badge(s.record) for s in sources))]
    keys = dict.fromkeys(k for column in columns for k in column)
    rows.extend((key, *(column.get(key, NOT_EXAMINED) for column in columns)) for key in keys)
    rows.append(("digest", *(Mono(digest_of(s.record)) for s in sources)))
    return table(("", *(s.record.subject for s in sources)), rows)


def _origin(record: Record) -> str:
    subject = show(record.subject, 40)
    return f"{subject}, repaired" if record.kind == "repair" else subject


def side_by_side(sources: Sequence[Source]) -> Figures | None:
    """One class measure of every scan that has it, on one scale, for comparison by eye."""
    scans = [
        (source, result, result.evidence.per_class)
        for source in sources
        for result in source.record.results
        if isinstance(result.evidence, ModelEvidence)
    ]
    measures = models.class_measures(scans[0][0].record, scans[0][1]) if scans else []
    if not measures:
        return None
    measure = measures[0]
    alike = [scan for scan in scans if scan[1].method == scans[0][1].method]
    values = [v for _, _, scores in alike for s in scores if (v := models.class_value(s, measure)) is not None]
    figures = []
    for source, result, scores in alike[:MAX_BESIDE]:
        if any(models.class_value(s, measure) is not None for s in scores):
            figure = models.class_figure(source, result, measure, also=values)
            figures.append(replace(figure, caption=f"{_origin(source.record)}: {figure.caption}"))
    return Figures(tuple(figures)) if len(figures) > 1 else None
