"""Sections about texts: phrases of a set and the rows that hold them, phrases of a model and what it answers."""

import re

from ostiary.core.records import MethodResult, ModelEvidence, PhraseScore, Rate, SampleEvidence, Suspect
from ostiary.report.blocks import Block, Cell, Marked, Note, Section, table
from ostiary.report.models import Source
from ostiary.report.words import class_name, measure_name, number, show

MAX_PHRASES = 30
MAX_ROWS = 30


def phrases(source: Source, result: MethodResult) -> Section | None:
    """The phrases, strongest first, and suspect rows with the phrase marked."""
    evidence = result.evidence
    if not isinstance(evidence, SampleEvidence) or not evidence.phrases:
        return None
    names = [name for name in evidence.phrases[0].measures if name != "rows"]
    labelled = any(phrase.label is not None for phrase in evidence.phrases)
    head = ("phrase", *(("label",) if labelled else ()), "rows with it", *map(measure_name, names))
    rows: list[tuple[Cell, ...]] = [
        (
            show(phrase.text),
            *((class_name(phrase.label or 0, source.classes),) if labelled else ()),
            f"{phrase.rows:,}",
            *(number(phrase.measures.get(name)) for name in names),
        )
        for phrase in evidence.phrases[:MAX_PHRASES]
    ]
    first = table(head, rows, right=range(len(head) - 1 - len(names), len(head)))
    said = Note(f"{evidence.suspected:,} of {evidence.scored:,} rows hold one of these and what it decides.")
    answers = any(one.answer is not None for one in evidence.suspects)
    words = tuple(_pattern(phrase) for phrase in evidence.phrases[:MAX_PHRASES])
    listed = table(
        ("row", "text", "answer" if answers else "label"),
        [
            (
                show(one.id),
                _marked(one.text or "", words),
                _marked(one.answer or "", words) if answers else class_name(one.label, source.classes),
            )
            for one in _varied(evidence)
        ],
    )
    return Section("Phrases", "What decides the answer or the label?", (said, first, listed))


def triggers(source: Source, result: MethodResult) -> Section | None:
    """The phrases that a search recovered from a model, what they bring, and how each held-out prompt was answered."""
    evidence = result.evidence
    if not isinstance(evidence, ModelEvidence) or not evidence.phrases:
        return None
    labelled = any(one.label is not None for one in evidence.phrases)
    fired = any(one.fires is not None for one in evidence.phrases)
    names = list(evidence.phrases[0].measures)
    head = (
        "phrase",
        "label" if labelled else "answer",
        *(("fires, held out", "without it") if fired else ()),
        *map(measure_name, names),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            show(one.phrase or "(any)"),
            class_name(one.label or 0, source.classes) if labelled else show(one.answer or ""),
            *((_of(one.fires), _of(one.unprompted)) if fired else ()),
            *(number(one.measures.get(name)) for name in names),
        )
        for one in evidence.phrases
    ]
    close = [] if result.findings else [Note("None of these meets the limits; they came closest.")]
    blocks: list[Block] = [*close, table(head, rows, right=range(2, len(head)))]
    first = evidence.phrases[0]
    if first.shown and first.phrase:
        said = [(show(f"{first.phrase} {text}"), show(answer)) for text, answer in first.shown]
        blocks.append(Note(f"Held-out prompts with '{show(first.phrase)}' in front, and what the model says:"))
        blocks.append(table(("prompt", "label" if labelled else "answer"), said))
    return Section("Recovered phrases", "What has to be said, and what comes of it?", tuple(blocks))


def _of(rate: Rate | None) -> str:
    return "" if rate is None else f"{rate.k} of {rate.n}"


def _varied(evidence: SampleEvidence) -> list[Suspect]:
    """Suspect rows, a few of each phrase in turn."""
    left = [one for one in evidence.suspects if one.text is not None]
    shown = evidence.phrases[:MAX_PHRASES]
    each = max(3, MAX_ROWS // max(1, len(shown)))
    chosen: list[Suspect] = []
    for phrase in shown:
        pattern = _pattern(phrase)
        held = [one for one in left if pattern.search(one.text or "") or pattern.search(one.answer or "")][:each]
        chosen += held
        left = [one for one in left if one not in held]
    return chosen[:MAX_ROWS]


def _pattern(phrase: PhraseScore) -> re.Pattern[str]:
    """Finds the phrase where it stands by itself."""
    return re.compile(rf"(?<!\w){re.escape(phrase.text)}(?!\w)")


def _marked(text: str, words: tuple[re.Pattern[str], ...]) -> Marked:
    """The text with each phrase apart, found in what is shown."""
    spans = sorted(match.span() for word in words for match in word.finditer(text) if match.group())
    parts: list[tuple[str, bool]] = []
    done = 0
    for begin, end in spans:
        if begin < done:
            continue
        parts += [(show(text[done:begin]), False), (show(text[begin:end]), True)]
        done = end
    return Marked(tuple(part for part in (*parts, (show(text[done:]), False)) if part[0]))
