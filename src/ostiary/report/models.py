"""Sections about a model's evidence: the recovered trigger, and the classes beside their limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostiary.core.records import Candidate, ClassScore, MethodResult, ModelEvidence, Record, SampleEvidence
from ostiary.report import svg
from ostiary.report.arrays import Arrays
from ostiary.report.blocks import Block, Cell, Figure, Figures, Note, Picture, Pictures, Section, table
from ostiary.report.png import Album, unit
from ostiary.report.words import class_name, measure_name, method_name, number

MAX_CANDIDATES = 3
MAX_MASKS = 64
MAX_BARS = 40
MAX_MEASURES = 3
SIZES = {
    "patch": ("mask size", "pixels (L1)"),
    "frequencies": ("size of the change", "frequencies"),
    "warp": ("mean shift", "pixels"),
}
"""How the size of a recovered trigger is called, and its unit."""


@dataclass(frozen=True, slots=True)
class Source:
    """One record as the sections see it."""

    record: Record
    arrays: Arrays
    album: Album
    samples: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.record.coverage.classes


def ranked(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """Most suspicious first; unscored classes last."""
    return sorted(scores, key=lambda s: (s.score is None, -(s.score or 0.0), s.label))


# --- recovered trigger -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Recovered:
    """The arrays a trigger search left: masks [k, h, w], patterns [k, c, h, w], a sample [c, h, w]."""

    masks: np.ndarray
    patterns: np.ndarray | None
    sample: np.ndarray | None


def trigger(source: Source, result: MethodResult) -> Section | None:
    """Each strong candidate as mask, pattern, sample and stamped sample; then every class's mask."""
    evidence = result.evidence
    if not isinstance(evidence, ModelEvidence):
        return None
    flagged = {f.subject for f in result.findings}
    ordered = sorted(evidence.candidates, key=lambda c: (c.subject not in flagged, -(c.score or 0.0), c.row))
    shown = [c for c in ordered if c.subject in flagged][:MAX_CANDIDATES] or ordered[:1]
    prefix = ordered[0].artifact if ordered else method_name(result.method)
    masks = source.arrays.get(f"{prefix}-mask", 3)
    blocks: list[Block] = []
    if masks is not None:
        patterns = source.arrays.get(f"{prefix}-pattern", 4) if ordered else None
        sample = source.arrays.get(f"{prefix}-sample", 3) if ordered and source.samples else None
        found = _Recovered(masks, patterns, sample)
        blocks += [_candidate(source, c, found, c.subject in flagged) for c in shown]
        if evidence.per_class:
            blocks.append(_multiples(source, evidence, masks))
    elif ordered:
        blocks += _before_and_after(source, shown, flagged)
        blocks.append(_candidate_table(source, ordered))
    if not blocks:
        return None
    return Section("Recovered trigger", "Does it look like a trigger?", tuple(blocks))


def _before_and_after(source: Source, shown: Sequence[Candidate], flagged: set[str]) -> list[Block]:
    """A sample beside what each trigger makes of it, of forms that have no mask to draw."""
    prefix = shown[0].artifact
    sample = source.arrays.get(f"{prefix}-sample", 3) if source.samples else None
    triggered = source.arrays.get(f"{prefix}-triggered", 4) if source.samples else None
    if sample is None or triggered is None:
        return []
    blocks: list[Block] = []
    for candidate in shown:
        pictures = source.album.picture(unit(sample), "a trusted sample", "trusted sample", "as it is")
        if 0 <= (k := candidate.row) < len(triggered):
            pictures += source.album.picture(
                unit(triggered[k]), "the sample with the trigger", "with the trigger", f"towards class {k}"
            )
        title = _title(source, candidate, candidate.subject in flagged)
        blocks.append(Pictures(tuple((one,) for one in pictures), title, _facts(candidate)))
    return blocks


def _facts(candidate: Candidate) -> tuple[tuple[str, Cell], ...]:
    name, unit_name = SIZES[candidate.form]
    return (
        (name, f"{number(candidate.size)} {unit_name}".strip()),
        (measure_name("flip_held_out"), candidate.flip_held_out),
        (measure_name("flip_search"), candidate.flip_search),
    )


def _candidate(source: Source, candidate: Candidate, found: _Recovered, flagged: bool) -> Pictures:
    k = candidate.row
    pictures = _stamping(source.album, k, _where(source, candidate), found) if 0 <= k < len(found.masks) else []
    return Pictures(tuple((p,) for p in pictures), _title(source, candidate, flagged), _facts(candidate))


def _where(source: Source, candidate: Candidate) -> str:
    """What the trigger does, in words."""
    if candidate.target is None:
        return f"every class to the one {candidate.shift} further on"
    start = "" if candidate.source is None else f"from class {class_name(candidate.source, source.classes)} "
    return f"{start}towards class {class_name(candidate.target, source.classes)}"


def _title(source: Source, candidate: Candidate, flagged: bool) -> str:
    words = _where(source, candidate)
    return f"{words[0].upper()}{words[1:]}: {'beyond' if flagged else 'within'} the limit"


def _stamping(album: Album, k: int, where: str, found: _Recovered) -> list[Picture]:
    """The mask, the pattern inside it, a sample, and the sample with the trigger stamped on."""
    mask = unit(found.masks[k])
    pictures = [*album.picture(mask, f"mask, {where}", "mask", "white = replaced")]
    if found.patterns is None or k >= len(found.patterns) or found.patterns.shape[2:] != mask.shape:
        return pictures
    pattern = unit(found.patterns[k])
    pictures += album.picture(pattern * mask, f"pattern, {where}", "pattern", "inside the mask")
    if found.sample is None or found.sample.shape != pattern.shape:
        return pictures
    image = unit(found.sample)
    stamped = (1 - mask) * image + mask * pattern
    pictures += album.picture(image, "a trusted sample", "trusted sample", "as it is")
    pictures += album.picture(stamped, "the stamped sample", "stamped sample", where)
    return pictures


def _candidate_table(source: Source, candidates: Sequence[Candidate]) -> Block:
    rows = [(class_name(c.row, source.classes), number(c.size), c.flip_held_out, c.flip_search) for c in candidates]
    name, unit_name = SIZES[candidates[0].form]
    return table(
        (
            "towards class",
            f"{name}, {unit_name}".strip(", "),
            measure_name("flip_held_out"),
            measure_name("flip_search"),
        ),
        rows,
    )


def _multiples(source: Source, evidence: ModelEvidence, masks: np.ndarray) -> Pictures:
    labels = [s.label for s in evidence.per_class if 0 <= s.label < len(masks)] or list(range(len(masks)))
    if len(labels) > MAX_MASKS:
        labels = [s.label for s in ranked(evidence.per_class) if 0 <= s.label < len(masks)][:MAX_MASKS] or labels
    unscored = {s.label for s in evidence.per_class if s.score is None}
    groups = []
    for k in labels[:MAX_MASKS]:
        size = "unscored" if k in unscored else f"{number(float(unit(masks[k]).sum(dtype=np.float64)))} px"
        alt = f"mask of class {k}"
        groups.append(source.album.picture(masks[k], alt, class_name(k, source.classes, 14), size, width=72, side=64))
    count = f"{len(groups)} of {len(masks)} classes, most suspicious first" if len(groups) < len(masks) else ""
    caption = (
        "Mask and its L1 size. The target of a patch trigger usually needs far fewer pixels than the other classes."
    )
    return Pictures(tuple(filter(None, groups)), f"All classes {count}".strip(), caption=caption)


# --- classes and limits ------------------------------------------------------------------------


def _finite(value: Any) -> float | None:
    number_like = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number_like and math.isfinite(value) else None


def class_value(score: ClassScore, measure: str) -> float | None:
    """What `measure` is for that class; 'score' is its score."""
    return score.score if measure == "score" else score.measures.get(measure)


def _limits(
    record: Record, result: MethodResult, scores: Sequence[ClassScore]
) -> dict[str, tuple[float | None, float | None]]:
    """Measure to (low, high): the closed range that counts against a class."""
    found: dict[str, tuple[float | None, float | None]] = {}
    every = record.config.get("limits")
    own = every.get(result.method) if isinstance(every, dict) else None
    for measure, limit in own.items() if isinstance(own, dict) else ():
        if isinstance(limit, dict):
            found[str(measure)] = (_finite(limit.get("low")), _finite(limit.get("high")))
    for finding in () if found else result.findings:  # an old record tells limits by its findings alone
        for score in scores if finding.threshold is not None else ():
            if finding.subject != f"class:{score.label}" or finding.score is None:
                continue
            names = [m for m in (*score.measures, "score") if class_value(score, m) == finding.score]
            over = finding.score >= finding.threshold  # type: ignore[operator]  # narrowed by the loop above
            for measure in names[:1]:
                found[measure] = (finding.threshold, None) if over else (None, finding.threshold)
    return {m: pair for m, pair in found.items() if any(v is not None for v in pair)}


def class_measures(record: Record, result: MethodResult) -> list[str]:
    """The measures worth a drawing: those with a limit, else the score, else what there is."""
    scores = _scores(result)
    known = [m for m in _limits(record, result, scores) if any(class_value(s, m) is not None for s in scores)]
    if not known and any(s.score is not None for s in scores):
        known = ["score"]
    return (known or sorted({m for s in scores for m in s.measures}))[:MAX_MEASURES]


def class_figure(source: Source, result: MethodResult, measure: str, *, also: Sequence[float] = ()) -> Figure:
    """Bars of one measure per class with its limit; `also` are values its axis must reach."""
    scores = _scores(result)
    limits = _limits(source.record, result, scores)
    low, high = limits.get(measure, (None, None))
    shown = scores if len(scores) <= MAX_BARS else ranked(scores)[:MAX_BARS]
    marks, rows = [], []
    for score in shown:
        value = class_value(score, measure)
        hot = bool(limits) and all(_inside(class_value(score, m), *pair) for m, pair in limits.items())
        rates: list[Cell] = list(score.rates.values())
        marks.append(svg.Bar(class_name(score.label, source.classes, 12), value, hot))
        rows.append((class_name(score.label, source.classes), number(value), "yes" if hot else "no", *rates))
    words = measure_name(measure)
    title = f"{method_name(result.method)}: {words} by class"
    drawing = svg.bars(marks, title=title, axis=words, low=low, high=high, also=also)
    same = all(list(s.rates) == list(shown[0].rates) for s in shown)
    head = ("class", words, "meets every limit", *(map(measure_name, shown[0].rates) if same else ()))
    data = table(head, rows if same else [row[:3] for row in rows], right=(1,))
    rest = f" {len(shown)} of {len(scores)} classes, most suspicious first." if len(shown) < len(scores) else ""
    return Figure(drawing, f"{words[:1].upper()}{words[1:]} by class.{rest}", data)


def _inside(value: float | None, low: float | None, high: float | None) -> bool:
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _scores(result: MethodResult) -> tuple[ClassScore, ...]:
    return result.evidence.per_class if isinstance(result.evidence, ModelEvidence | SampleEvidence) else ()


def of_texts(record: Record) -> bool:
    """Whether the record is of a screening of texts, which looks at phrases and not at classes."""
    return record.kind == "screen" and "task" in record.config


def class_index(source: Source, result: MethodResult) -> Section | None:
    """Bars per class with the limit, and where the limit comes from."""
    measures = class_measures(source.record, result)
    if not measures or of_texts(source.record):
        return None
    blocks: list[Block] = [Figures(tuple(class_figure(source, result, m) for m in measures))]
    if _limits(source.record, result, _scores(result)):
        blocks.append(Note("Hatched: the class meets every limit of the method. One limit alone makes no finding."))
    blocks.append(Note(calibration_words(source.record)))
    return Section("Classes", "Is one class odd, or are all?", tuple(blocks))


def whole(source: Source, result: MethodResult) -> Section | None:
    """What a method measured on the model as a whole, and where its limits come from."""
    evidence = result.evidence
    if not isinstance(evidence, ModelEvidence) or not evidence.measures:
        return None
    limits = _limits(source.record, result, ())
    rows = [
        (measure_name(key), number(value), *(number(end) for end in limits.get(key, (None, None))))
        for key, value in evidence.measures.items()
    ]
    blocks = (
        table(("measure", "value", "lower limit", "upper limit"), rows, right=(1, 2, 3)),
        Note(calibration_words(source.record)),
    )
    return Section("The model as a whole", "Does it look like others?", blocks)


def calibration_words(record: Record) -> str:
    """Where the limits come from."""
    calibration = record.calibration
    if calibration is not None and record.kind == "screen":
        return f"Limits: {calibration.description}."
    if calibration is None or not calibration.models:
        return "No reference models: limits are within the model, the other classes are the comparison."
    rate = calibration.false_positive_rate
    alarms = f"; false alarms on them {rate}" if rate else ""
    return f"Limits from {calibration.models} reference models ({calibration.id}): {calibration.description}{alarms}."
