"""A leaderboard's page as text for a terminal, as Markdown, and as one HTML file."""

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

from ostiary.bench.sheet import Cell, Page, Table
from ostiary.core.files import refuse_existing, write_text
from ostiary.report.markdown import escape
from ostiary.report.words import finalize, lines, show

GAP = "  "
LONG = 2000
"""Characters of a note or of an attack's parameters that are shown."""

WIDEST = 44
"""Characters of a column of text before it is broken into lines."""


# --- text -----------------------------------------------------------------------------------------


def render_text(page: Page, *, width: int = 120) -> str:
    """The page for a terminal of `width` columns.

    A cell is its value with its interval below it. A table that is too wide is cut into blocks of
    columns, each of which begins with those that name the row.
    """
    parts = [page.title, "", *(f"{name:<8}  {show(value)}" for name, value in page.facts), ""]
    parts += [line for note in page.notes for line in _wrapped(note, width)]
    for section in page.sections:
        parts += ["", show(section.title).upper()]
        parts += [f"{name}: {show(value, LONG)}" for name, value in section.facts]
        for table in section.tables:
            parts += ["", *_text_table(table, width)]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def _text_table(table: Table, width: int) -> Iterator[str]:
    heads = [_head_lines(name) for name in table.head]
    columns = [[_cell_lines(row[i]) for row in table.rows] for i in range(len(heads))]
    widths = [
        max(_width(line) for lines in (head, *column) for line in lines)
        for head, column in zip(heads, columns, strict=True)
    ]
    yield show(table.title)
    for block in _blocks(widths, width, table.keys):
        tallest = max(len(heads[i]) for i in block)
        head = [[""] * (tallest - len(heads[i])) + heads[i] for i in block]
        for row in (head, *zip(*(columns[i] for i in block), strict=True)):
            for line in zip_longest(*row, fillvalue=""):
                yield GAP + GAP.join(_padded(text, widths[i]) for i, text in zip(block, line, strict=True))
        yield ""
    for note in table.notes:
        yield from _wrapped(note, width)


def _head_lines(name: str) -> list[str]:
    shown = show(name)
    broken = _wrapped(shown, max(12, *map(_width, shown.split() or [""])))
    return [*broken, "-" * max(map(_width, broken))]


def _cell_lines(cell: Cell) -> list[str]:
    return [*_wrapped(show(cell.text), WIDEST), *([show(cell.spread)] if cell.spread else [])]


def _blocks(widths: Sequence[int], width: int, keys: int) -> Iterator[list[int]]:
    """Which columns stand side by side; those that name the row in every block."""
    first = list(range(keys))
    block, used = first, sum(len(GAP) + widths[i] for i in first)
    begin = used
    for i in range(keys, len(widths)):
        need = len(GAP) + widths[i]
        if used + need > width and len(block) > keys:
            yield block
            block, used = first, begin
        block, used = [*block, i], used + need
    yield block


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        pieces = [word[at : at + width] for at in range(0, len(word), width)]
        for piece in pieces:
            if lines[-1] and _width(lines[-1]) + 1 + _width(piece) > width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {piece}" if lines[-1] else piece
    return lines


def _width(text: str) -> int:
    """Columns of a terminal; wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


# --- Markdown -------------------------------------------------------------------------------------


def render_markdown(page: Page, *, level: int = 1) -> str:
    """The page as Markdown whose title is a heading of `level`; names from a grid cannot be markup."""
    lines = [f"{'#' * level} {escape(page.title)}", ""]
    lines += [f"- {escape(name)}: {escape(value)}" for name, value in page.facts]
    lines += ["", *(f"{escape(note, LONG)}\n" for note in page.notes)]
    lines += [_contents(page), ""] if len(page.sections) > 1 else []
    for section in page.sections:
        lines += [f'<a id="{section.slug}"></a>', "", f"{'#' * (level + 1)} {escape(section.title)}", ""]
        lines += [f"- {escape(name)}: {escape(value, LONG)}" for name, value in section.facts]
        lines += [""] if section.facts else []
        for table in section.tables:
            lines += [f"{'#' * (level + 2)} {escape(table.title)}", "", *_markdown_table(table), ""]
            lines += [f"{escape(note, LONG)}\n" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def _contents(page: Page) -> str:
    return " · ".join(f"[{escape(section.title, 60)}](#{section.slug})" for section in page.sections)


def _markdown_table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(map(escape, table.head)) + " |"
    yield "|" + " --- |" * len(table.head)
    for row in table.rows:
        yield "| " + " | ".join(map(_markdown_cell, row)) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = escape(cell.text)
    linked = f"[{text}](#{cell.link})" if cell.link else text
    return f"{linked} {escape(cell.spread)}" if cell.spread else linked


# --- HTML -----------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PrefixLoader({"bench": PackageLoader("ostiary.bench"), "report": PackageLoader("ostiary.report")}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"strip": _strip, "long": lambda text: lines(text, LONG)}
    return env


def render_html(page: Page) -> str:
    """The page as one file without network: readable without script, its columns sortable with it.

    Same page, same text. The one script is allowed by its hash, no other can run.
    """
    env = _environment()
    script = env.get_template("bench/sort.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    groups = {
        group: [one for one in page.sections if one.group == group] for group in ("overview", "attack", "defence")
    }
    # our own file, in which nothing was filled in
    code = Markup(script)  # noqa: S704 - see above
    return env.get_template("bench/leaderboard.html.j2").render(page=page, groups=groups, script=code, digest=digest)


def write_html(page: Page, out: Path) -> None:
    """Write the page of `render_html` to `out`, whole or not at all.

    Raises OutputError when it exists or cannot be written.
    """
    refuse_existing(out)
    write_text(out, render_html(page))


def _strip(span: tuple[float, float, float]) -> Markup:
    """An interval and its value on a line from 0 to 1."""
    low, value, high = (round(100 * min(max(part, 0.0), 1.0)) for part in span)
    return Markup('<svg viewBox="0 0 100 6"><path d="M0 3H100"/><path d="M{} 3h{}"/><path d="M{} 0v6"/></svg>').format(
        low, max(high - low, 1), value
    )
