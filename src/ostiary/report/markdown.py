"""Records as Markdown for a ticket: verdict, findings, coverage, cautions, reproduce."""

import re
from collections.abc import Sequence

from ostiary.core.records import Rate, Record
from ostiary.report.blocks import Badge, Cell, Table
from ostiary.report.build import cautions, coverage, findings, reproduce_text
from ostiary.report.words import KIND_WORDS, TEXT, digest_of, next_step, show, verdict_sentence

SPECIAL = re.compile(r"([\\`*_\[\]|~#!])")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def escape(text: object, limit: int = TEXT) -> str:
    """Hostile text as inert Markdown: no markup, no table breaks, no mentions, no links."""
    shown = "".join(ENTITIES.get(char, char) for char in show(text, limit))
    shown = SPECIAL.sub(r"\\\1", shown)
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")


def _cell(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return escape(cell.word)
    return escape(cell) if isinstance(cell, str | Rate) else ""


def _table(table: Table) -> list[str]:
    rule = ["---:" if i in table.right else "---" for i in range(len(table.head))]
    rows = [table.head, *table.rows]
    drawn = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    more = [f"\n{table.more} more rows are in the record."] if table.more else []
    return [drawn[0], "| " + " | ".join(rule) + " |", *drawn[1:], *more]


def _code(text: str) -> list[str]:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, text, fence]


def _one(record: Record) -> list[str]:
    words, command = next_step(record)
    parts = [f"## {KIND_WORDS[record.kind]}: {escape(record.subject, 60)}", "", f"**{verdict_sentence(record)}**", ""]
    if record.interrupted:
        parts += ["The run was interrupted: this record is partial.", ""]
    if words:
        parts += [escape(words, 400), ""]
    if command:
        parts += [*_code(command), ""]
    looked = ", no model looked at" if record.data_alone else ""
    parts += [f"Digest {escape(digest_of(record))}, record {escape(record.id)}{looked}", ""]
    for section in (findings(record), coverage(record), cautions(record)):
        for block in section.blocks if section else ():
            if section and isinstance(block, Table):
                parts += [f"### {section.title}", "", *_table(block), ""]
    return [*parts, "### Reproduce", "", *_code(reproduce_text(record)), "", f"Seed {record.seed}", ""]


def render_markdown(records: Sequence[Record]) -> str:
    """The records as Markdown, one section each."""
    return "\n".join(line for record in records for line in _one(record))
