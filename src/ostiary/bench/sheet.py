"""Tables as plain data, the same for a terminal, Markdown and HTML."""

from dataclasses import dataclass

from ostiary.bench.bootstrap import Estimate
from ostiary.core.records import Rate

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Cell:
    """A value in words; what was not measured is DASH.

    `spread` is its interval and n. `sort` orders a column where the words would not. `span` is (low,
    value, high) as shares of 1, to be drawn. `link` is the slug of a section. `tone` is 'all', 'some'
    or 'none' (of a kind solved), or 'bad' (failed).
    """

    text: str
    spread: str = ""
    sort: float | None = None
    span: tuple[float, float, float] | None = None
    link: str = ""
    tone: str = ""


DASH = Cell("-")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head. The first `keys` columns name the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    keys: int = 1


@dataclass(frozen=True, slots=True)
class Section:
    """Tables that belong together; `group` is 'overview', 'attack' or 'defence'."""

    slug: str
    title: str
    group: str
    tables: tuple[Table, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole leaderboard."""

    title: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


def words(text: object, *, link: str = "", tone: str = "") -> Cell:
    """A text."""
    return Cell(str(text), link=link, tone=tone) if text not in (None, "") else DASH


def number(value: float | None, digits: int = 3) -> Cell:
    """A number."""
    return DASH if value is None else Cell(f"{value:.{digits}g}" if value else "0", sort=value)


def whole(value: int | None) -> Cell:
    """A whole number."""
    return DASH if value is None else Cell(f"{value:,}", sort=value)


def yes_no(value: bool | None) -> Cell:
    """An answer, or DASH where there is none."""
    return DASH if value is None else Cell("yes" if value else "no", sort=float(value))


def rate(value: Rate | None) -> Cell:
    """A rate in percent."""
    if value is None or value.value is None:
        return DASH
    spread = f"[{100 * value.low:.1f}, {100 * value.high:.1f}] n {value.n:,}"
    return Cell(f"{100 * value.value:.1f} %", spread, value.value, (value.low, value.value, value.high))


def out_of(value: Rate) -> Cell:
    """A rate over a few models, as k of n."""
    if value.value is None:
        return DASH
    spread = f"{100 * value.value:.0f} % [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return Cell(f"{value.k} of {value.n}", spread, value.value, (value.low, value.value, value.high))


def share(value: Estimate) -> Cell:
    """A mean of rates, in percent."""
    return _estimate(value, 100, 1, " %")


def percent(value: Estimate) -> Cell:
    """A mean that is in percent already."""
    return _estimate(value, 1, 1, " %")


def points(value: Estimate) -> Cell:
    """A mean difference of rates, in percentage points; nothing is drawn."""
    cell = _estimate(value, 100, 1, "")
    return Cell(cell.text, cell.spread, cell.sort)


def plain(value: Estimate, *, drawn: bool = False) -> Cell:
    """A mean as it is; drawn when it lies in [0, 1]."""
    cell = _estimate(value, 1, 3, "")
    return cell if drawn else Cell(cell.text, cell.spread, cell.sort)


def _estimate(value: Estimate, scale: float, digits: int, unit: str) -> Cell:
    if value.value is None:
        return DASH
    at = scale * value.value
    text = _signed(f"{at:.{digits}f}") + unit
    if value.low is None or value.high is None:
        return Cell(text, f"n {value.n}", at)
    low, high = scale * value.low, scale * value.high
    spread = f"[{_signed(f'{low:.{digits}f}')}, {_signed(f'{high:.{digits}f}')}] n {value.n}"
    full = 100 if unit else 1
    return Cell(text, spread, at, (low / full, at / full, high / full))


def _signed(text: str) -> str:
    """With a minus sign of its full width, and none before zero."""
    return text.replace("-", "\u2212") if float(text) else text.replace("-", "")


def seconds(value: float | None) -> Cell:
    """Seconds, to three digits."""
    if value is None:
        return DASH
    return Cell(f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s", sort=value)


def memory(value: int | None) -> Cell:
    """Bytes, in MiB."""
    return DASH if value is None else Cell(f"{value / MIB:,.0f} MiB", sort=value)


def lost(count: int, of: int) -> Cell:
    """How many gave nothing, of how many."""
    return Cell(f"{count} of {of}", sort=count, tone="bad" if count else "")
