"""The few kinds of block a report is made of; the templates know these and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2.environment import Environment
from markupsafe import Markup

from ostiary.core.records import Rate

MAX_ROWS = 100


@dataclass(frozen=True, slots=True)
class Badge:
    """A state in one word, with a shape and a colour chosen by `tone` (a verdict, or 'measured')."""

    word: str
    tone: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One re-encoded image as a data URI; `width` is in CSS pixels."""

    uri: Markup
    alt: str
    caption: tuple[str, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Mono:
    """Text to compare character by character: a digest."""

    text: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A text in parts, of which some are marked."""

    parts: tuple[tuple[str, bool], ...]


Cell = str | Rate | Badge | Picture | Mono | Marked


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; `right` names the columns set flush right, `more` counts rows left out."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[int] = frozenset()
    more: int = 0
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption and the numbers it shows."""

    svg: Markup
    caption: str
    data: Table


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that lie beside one another where there is room."""

    items: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A titled row of groups of pictures; the pictures of one group stay together."""

    groups: tuple[tuple[Picture, ...], ...]
    title: str = ""
    facts: tuple[tuple[str, Cell], ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and values."""

    items: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence; `marked` sets it apart."""

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """A command or other text to copy; `text` is escaped already and may hold several lines."""

    text: Markup
    label: str = ""
    folded: bool = False


Block = Table | Figure | Figures | Pictures | Pairs | Note | Code


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks that answer one question; `slug` is set when the chapter knows its place."""

    title: str
    question: str
    blocks: tuple[Block, ...]
    slug: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several records: an overview, then for each kind of record its key values side by side."""

    overview: Table
    kinds: tuple[tuple[str, Table], ...]
    beside: Figures | None


@dataclass(frozen=True, slots=True)
class Chapter:
    """One record."""

    slug: str
    title: str
    badge: Badge
    sentence: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[Note | Code, ...]
    sections: tuple[Section, ...]


def table(
    head: Iterable[str], rows: Iterable[tuple[Cell, ...]], *, right: Iterable[int] = (), caption: str = ""
) -> Table:
    """A table of at most MAX_ROWS rows that says how many it left out."""
    every = tuple(rows)
    more = max(0, len(every) - MAX_ROWS)
    return Table(tuple(head), every[:MAX_ROWS], frozenset(right), more, caption)


def add_tests(env: Environment) -> None:
    """Let templates ask a block or cell for its kind: `is table`, `is rate`, ..."""

    def asks(kind: type) -> Any:
        return lambda value: isinstance(value, kind)

    for kind in (Badge, Picture, Mono, Marked, Table, Figure, Figures, Pictures, Pairs, Note, Code, Rate):
        env.tests[kind.__name__.lower()] = asks(kind)
