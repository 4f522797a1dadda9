"""Sections about a data set's evidence: activations, suspects and where to cut."""

import numpy as np

from ostiary.core.records import ClassScore, MethodResult, SampleEvidence, Suspect
from ostiary.report import svg
from ostiary.report.blocks import Block, Figure, Figures, Note, Picture, Pictures, Section, table
from ostiary.report.models import Source, of_texts, ranked
from ostiary.report.words import class_name, method_name, number

MAX_PLOTS = 3
MAX_POINTS = 1000
MAX_GALLERY = 24
CURVE_POINTS = 160
HUGE = 1e30
MAX_LABEL = 1e9


def finite(values: np.ndarray) -> np.ndarray:
    """The values a drawing can hold, as float64."""
    real = values.astype(np.float64)
    kept: np.ndarray = real[np.isfinite(real) & (np.abs(real) < HUGE)]
    return kept


def activations(source: Source, result: MethodResult) -> Section | None:
    """First two principal components of the most suspicious classes, two groups each."""
    evidence = result.evidence
    if not isinstance(evidence, SampleEvidence):
        return None
    points = source.arrays.get(f"{evidence.artifact}-pca", 2)
    if points is None or points.shape[1] != 4 or not len(points):
        return None
    points = points.astype(np.float64)
    points = points[np.all(np.isfinite(points) & (np.abs(points) < HUGE), axis=1) & (np.abs(points[:, 3]) < MAX_LABEL)]
    found = set(np.unique(points[:, 3].astype(np.int64)).tolist())
    flagged = [f.subject for f in result.findings if f.level != "note"]
    order: list[ClassScore] = sorted(ranked(evidence.per_class), key=lambda s: f"class:{s.label}" not in flagged)
    labels = [s.label for s in order if s.label in found] or sorted(found)
    figures = [_scatter(source, points[points[:, 3] == k], k) for k in labels[:MAX_PLOTS]]
    if not figures:
        return None
    return Section(
        "Activations",
        "Are there two groups inside a class?",
        (Figures(tuple(figures)),),
    )


def _scatter(source: Source, points: np.ndarray, label: int) -> Figure:
    two = [points[points[:, 2] < 0.5, :2], points[points[:, 2] >= 0.5, :2]]
    shown = [group[:MAX_POINTS] for group in two]
    name = class_name(label, source.classes)
    drawing = svg.scatter((("first group", shown[0]), ("second group", shown[1])), title=f"Activations of class {name}")
    rows = [
        (which, f"{len(g):,}", *((number(float(v)) for v in g.mean(axis=0)) if len(g) else ("-", "-")))
        for which, g in zip(("first group", "second group"), two, strict=True)
    ]
    data = table(("group", "samples", "mean of first", "mean of second component"), rows, right=(1, 2, 3))
    return Figure(drawing, f"Class {name}, first two principal components.", data)


def gallery(source: Source, result: MethodResult) -> Section | None:
    """The strongest suspects, each beside its nearest unsuspected sample of the same class."""
    evidence = result.evidence
    if not isinstance(evidence, SampleEvidence) or not evidence.suspects or of_texts(source.record):
        return None
    pictures = source.arrays.get(f"{evidence.artifact}-gallery", 4) if source.samples else None
    nearest = source.arrays.get(f"{evidence.artifact}-gallery-nearest", 4) if source.samples else None
    blocks: list[Block] = [Note(f"{evidence.suspected:,} of {evidence.scored:,} scored samples are suspected.")]
    if pictures is not None:
        groups = [_pair(source, s, i, pictures, nearest) for i, s in enumerate(evidence.suspects[:MAX_GALLERY])]
        caption = (
            "Left: the suspect, its label and score. Right: the nearest sample of that label that is not suspected."
        )
        blocks.append(Pictures(tuple(filter(None, groups)), caption=caption))
    else:
        rows = [
            (s.id, class_name(s.label, source.classes), number(s.score), s.nearest or "-")
            for s in evidence.suspects[:MAX_GALLERY]
        ]
        blocks.append(table(("sample", "label", "score", "nearest not suspected"), rows, right=(2,)))
    return Section("Suspects", "Would I remove these?", tuple(blocks))


def _pair(
    source: Source, suspect: Suspect, row: int, pictures: np.ndarray, nearest: np.ndarray | None
) -> tuple[Picture, ...]:
    if row >= len(pictures):
        return ()
    label = class_name(suspect.label, source.classes, 14)
    first = source.album.picture(
        pictures[row],
        f"suspect {suspect.id}",
        suspect.id,
        label,
        f"score {number(suspect.score)}",
        width=72,
        side=96,
    )
    if not first or nearest is None or row >= len(nearest) or suspect.nearest is None:
        return first
    return first + source.album.picture(
        nearest[row], f"nearest {suspect.nearest}", suspect.nearest, "nearest", width=72, side=96
    )


def cuts(source: Source, result: MethodResult) -> Section | None:
    """Scores of suspects and of the rest, and how many samples each cut would remove."""
    evidence = result.evidence
    if not isinstance(evidence, SampleEvidence):
        return None
    scores = source.arrays.get(f"{evidence.artifact}-scores", 1)
    suspected = source.arrays.get(f"{evidence.artifact}-suspected", 1)
    if scores is None or not len(finite(scores)):
        return None
    marked = (
        suspected.astype(bool)
        if suspected is not None and len(suspected) == len(scores)
        else np.zeros(len(scores), bool)
    )
    rest, hot = finite(scores[~marked]), finite(scores[marked])
    groups = [(name, values) for name, values in (("not suspected", rest), ("suspected", hot)) if len(values)]
    name = method_name(result.method)
    drawing = svg.histogram(groups, title=f"{name}: scores", axis="score (higher = more suspicious)")
    rows = [(which, f"{len(v):,}", *(number(float(q)) for q in np.quantile(v, (0, 0.5, 1)))) for which, v in groups]
    data = table(("group", "samples", "lowest", "median", "highest"), rows, right=(1, 2, 3, 4))
    unscored = len(scores) - len(rest) - len(hot)
    figures = (Figure(drawing, f"Scores. {unscored:,} samples are unscored.", data), _removal(name, rest, hot))
    return Section("Scores", "Where to cut?", (Figures(figures),))


def _removal(name: str, rest: np.ndarray, hot: np.ndarray) -> Figure:
    every = np.sort(np.concatenate((rest, hot)))
    rows = np.unique(np.linspace(0, len(every) - 1, min(len(every), CURVE_POINTS)).astype(np.int64))
    points = [(float(every[i]), float(len(every) - np.searchsorted(every, every[i]))) for i in rows]
    drawing = svg.curve(
        points,
        title=f"{name}: samples removed by a cut",
        axes=("cut (score)", "samples at or above it"),
        mark=float(hot.min()) if len(hot) else None,
    )
    few = points[:: max(1, len(points) // 12)]
    data = table(("cut", "samples at or above it"), [(number(a), f"{b:,.0f}") for a, b in few], right=(0, 1))
    return Figure(drawing, "Removal curve: how many samples have this score or more.", data)
