"""Sections about rates: repair before and after, guards, and plain measurements."""

from ostiary.core.records import GuardEvidence, MethodResult, RatesEvidence, RepairEvidence
from ostiary.report import svg
from ostiary.report.blocks import Block, Cell, Figure, Figures, Note, Pairs, Section, table
from ostiary.report.models import MAX_BARS, MAX_MEASURES, Source
from ostiary.report.samples import finite
from ostiary.report.words import change, class_name, measure_name, method_name, number

UNMEASURED = Note("Nothing was measured: there were no trusted samples to measure on.")


def repair(source: Source, result: MethodResult) -> Section | None:
    """The rates before and after, overall and per class, and what was chosen on which split."""
    evidence = result.evidence
    if not isinstance(evidence, RepairEvidence):
        return None
    name = method_name(result.method)
    keys = list(dict.fromkeys((*evidence.before, *evidence.after)))
    rows: list[tuple[Cell, ...]] = [
        (
            measure_name(k),
            evidence.before.get(k, "-"),
            evidence.after.get(k, "-"),
            change(evidence.before.get(k), evidence.after.get(k)),
        )
        for k in keys
    ]
    blocks: list[Block] = [table(("measure", "before", "after", "change"), rows, right=(3,))] if rows else [UNMEASURED]
    pairs = list(zip(evidence.per_class_before, evidence.per_class_after, strict=False))
    if pairs:
        labels = [class_name(i, source.classes, 12) for i in range(len(pairs))]
        drawing = svg.intervals(
            list(zip(labels, pairs, strict=True))[:MAX_BARS], ("before", "after"), title=f"{name}: accuracy per class"
        )
        data = table(
            ("class", "before", "after", "change"),
            [(class_name(i, source.classes), b, a, change(b, a)) for i, (b, a) in enumerate(pairs)],
            right=(3,),
        )
        blocks.append(Figures((Figure(drawing, "Accuracy per class in percent, with 95 % intervals.", data),)))
    if evidence.selected:
        blocks.append(
            table(
                ("choice", "made on"),
                list(evidence.selected.items()),
                caption="Choices and the trusted split they were made on",
            )
        )
    return Section("Before and after", "What did it do, and what did it cost?", tuple(blocks))


def guard(source: Source, result: MethodResult) -> Section | None:
    """The limit, how often it rejects trusted samples, and the scores on both sides of it."""
    evidence = result.evidence
    if not isinstance(evidence, GuardEvidence):
        return None
    name = method_name(result.method)
    facts: list[tuple[str, Cell]] = [("limit", number(evidence.threshold))]
    if evidence.false_rejection is not None:
        facts.append(("false rejection of trusted samples", evidence.false_rejection))
    if evidence.flagged is not None:
        facts.append(("scored inputs flagged", evidence.flagged))
    blocks: list[Block] = [Pairs(tuple(facts))]
    if evidence.artifact is not None:
        parts = (
            ("trusted", source.arrays.get(f"{evidence.artifact}-trusted-scores", 1)),
            ("scored inputs", source.arrays.get(f"{evidence.artifact}-scores", 1)),
        )
        groups = [(which, finite(v)) for which, v in parts if v is not None and len(finite(v))]
        if groups:
            drawing = svg.histogram(
                groups, title=f"{name}: scores", axis="score (higher = more suspicious)", limit=evidence.threshold
            )
            rows = [(which, f"{len(v):,}", f"{int((v > evidence.threshold).sum()):,}") for which, v in groups]
            data = table(("group", "samples", "above the limit"), rows, right=(1, 2))
            blocks.append(Figures((Figure(drawing, "Scores on both sides of the limit.", data),)))
    return Section("Guard", "What would it reject?", tuple(blocks))


def rates(source: Source, result: MethodResult) -> Section | None:
    """Measured rates with their Wilson intervals, other measures, and rates per class."""
    evidence = result.evidence
    if not isinstance(evidence, RatesEvidence):
        return None
    name = method_name(result.method)
    rows: list[tuple[Cell, ...]] = [(measure_name(key), rate) for key, rate in evidence.rates.items()]
    rows += [(measure_name(key), number(value)) for key, value in evidence.measures.items()]
    blocks: list[Block] = (
        [table(("measure", "value"), rows, caption="Rates with 95 % Wilson intervals")] if rows else []
    )
    if evidence.selected:
        chosen = list(evidence.selected.items())
        blocks.append(table(("choice", "made on"), chosen, caption="Choices and what they were made on"))
    keys = list(dict.fromkeys(k for s in evidence.per_class for k in s.rates))[:MAX_MEASURES]
    figures = [_per_class(source, evidence, name, key) for key in keys]
    if figures:
        blocks.append(Figures(tuple(figures)))
    if not blocks:
        return None
    return Section("Rates", "What was measured?", tuple(blocks))


def _per_class(source: Source, evidence: RatesEvidence, name: str, key: str) -> Figure:
    rows = [(s, s.rates[key]) for s in evidence.per_class if key in s.rates]
    words = measure_name(key)
    drawing = svg.intervals(
        [(class_name(s.label, source.classes, 12), (rate,)) for s, rate in rows[:MAX_BARS]],
        ("rate",),
        title=f"{name}: {words} per class",
    )
    data = table(("class", words), [(class_name(s.label, source.classes), rate) for s, rate in rows])
    return Figure(drawing, f"{words[:1].upper()}{words[1:]} per class in percent, with 95 % intervals.", data)
