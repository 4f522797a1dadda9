"""A small SVG writer: bars with a limit, intervals, scatter, histograms and a curve.

Colours and patterns come from the page's style sheet by class name, so that dark mode and print
need no second drawing. Every drawing has a title and a description.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from ostiary.core.records import Rate
from ostiary.report.words import number, percent, show

WIDTH = 520
RIGHT = 52
LABEL = 16


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; a value of None is drawn as '-', `hot` marks it as beyond the limits."""

    label: str
    value: float | None
    hot: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values, 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, *, cls: str = "", anchor: str = "start") -> str:
    return f'<text x="{_px(x)}" y="{_px(y)}" class="{cls}" text-anchor="{anchor}">{escape(show(text))}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    return f'<path class="{cls}" d="M{_px(x1)} {_px(y1)}L{_px(x2)} {_px(y2)}"/>'


def _drawing(width: float, height: float, title: str, desc: str, parts: Sequence[str]) -> Markup:
    head = f"<title>{escape(show(title))}</title><desc>{escape(show(desc, 400))}</desc>"
    size = f'viewBox="0 0 {_px(width)} {_px(height)}" style="max-width:{_px(width)}px"'
    # all text in it went through escape above
    wide = ' class="wide"' if width == WIDTH else ""
    return Markup(f'<svg role="img"{wide} {size}>{head}{"".join(parts)}</svg>')  # noqa: S704 - see above


def _span(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    """The range of `values`, widened a little and never empty."""
    every = [v for v in values if math.isfinite(v) and abs(v) < 1e30] + ([0.0] if zero else [])
    low, high = min(every, default=0.0), max(every, default=1.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        room = max(0.5, 0.01 * abs(high))
        low, high = low - room, high + room
    pad = 0.04 * (high - low)
    return (low if zero and low == 0 else low - pad), (high if zero and high == 0 else high + pad)


def _x_axis(x: Scale, top: float, bottom: float, name: str = "", *, unit: str = "") -> list[str]:
    parts = []
    for tick in x.ticks():
        parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 15, number(tick) + unit, cls="dim", anchor="middle"))
    if name:
        parts.append(_text((x.start + x.end) / 2, bottom + 33, name, cls="dim", anchor="middle"))
    return parts


def _margin(labels: Sequence[str]) -> float:
    """Room for the longest label, whose characters are at most about 7.4 pixels wide."""
    return 14 + 7.4 * max((min(len(label), LABEL + 1) for label in labels), default=0)


def _limit_line(at: float, top: float, bottom: float, text: str, room: float) -> list[str]:
    anchor = "end" if at > room * 0.7 else "start"
    side = -5 if anchor == "end" else 5
    return [_line(at, top - 12, at, bottom, "limit"), _text(at + side, top - 4, text, cls="limit-text", anchor=anchor)]


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    axis: str,
    low: float | None = None,
    high: float | None = None,
    also: Sequence[float] = (),
) -> Markup:
    """Horizontal bars from zero; `low` and `high` bound the closed range the limit line marks.

    The axis reaches every value in `also`, so that two drawings can share a scale.
    """
    left = _margin([row.label for row in rows])
    pitch = 22 if len(rows) <= 20 else 16
    top, bottom = 20, 20 + pitch * len(rows) + 4
    limits = [v for v in (low, high) if v is not None]
    values = [r.value for r in rows if r.value is not None] + list(also)
    room = 44 if any(v < 0 for v in values) else 0
    x = Scale(*_span(values + limits, zero=True), left + room, WIDTH - RIGHT)
    parts = _x_axis(x, top, bottom, axis)
    for i, row in enumerate(rows):
        y = top + 4 + i * pitch
        parts.append(_text(left - 8, y + pitch * 0.62, show(row.label, LABEL), anchor="end"))
        if row.value is None or not math.isfinite(row.value):
            parts.append(_text(x(0) + 5, y + pitch * 0.62, "-", cls="dim"))
            continue
        a, b = sorted((x(0), x(max(x.low, min(x.high, row.value)))))
        cls = "hot" if row.hot else "bar"
        rect = f'x="{_px(a)}" y="{_px(y)}" width="{_px(max(b - a, 1))}" height="{pitch - 6}" rx="2"'
        parts.append(f'<rect class="{cls}" {rect}/>')
        anchor, edge = ("end", a - 4) if row.value < 0 else ("start", b + 4)
        parts.append(
            _text(edge, y + pitch * 0.62, number(row.value), cls="strong" if row.hot else "dim", anchor=anchor)
        )
    parts.append(_line(x(0), top, x(0), bottom, "axis"))
    for value, sign in ((low, "≥"), (high, "≤")):
        if value is not None:
            parts += _limit_line(x(value), top, bottom, f"limit {sign} {number(value)}", WIDTH)
    hot = sum(r.hot for r in rows)
    return _drawing(WIDTH, bottom + 40, title, f"{len(rows)} bars, {hot} beyond the limits.", parts)


def _whisker(x: Scale, y: float, rate: Rate, series: int) -> str:
    value = rate.value
    if value is None:
        return _text(x.start + 5, y + 4, "-", cls="dim")
    at, ends = _px(x(100 * value)), f"M{_px(x(100 * rate.low))} {_px(y)}H{_px(x(100 * rate.high))}"
    mark = f"M{at} {_px(y - 5)}l5 5l-5 5l-5-5z" if series else f"M{at} {_px(y - 4)}a4 4 0 1 0 .01 0z"
    name = escape(str(rate))
    return f'<g class="s{series}"><title>{name}</title><path class="whisker" d="{ends}"/><path d="{mark}"/></g>'


def intervals(rows: Sequence[tuple[str, Sequence[Rate]]], names: Sequence[str], *, title: str) -> Markup:
    """Rates with their intervals, one row per label, at most two series: a circle and a diamond.

    The axis ends at 100 % and begins at 0 unless every interval lies above a half.
    """
    left = _margin([label for label, _ in rows])
    pitch = 14 * len(names) + 12
    top = 26 if len(names) > 1 else 8
    bottom = top + pitch * len(rows)
    lowest = min((100 * rate.low for _, rates in rows for rate in rates if rate.n), default=0.0)
    x = Scale(10 * math.floor(lowest / 10) if lowest > 50 else 0, 100, left, WIDTH - RIGHT)
    parts = _x_axis(x, top, bottom, unit=" %")
    for i, name in enumerate(names if len(names) > 1 else ()):
        parts.append(_whisker(Scale(0, 100, left + 90 * i, left + 90 * i + 20), 12, Rate(k=1, n=2), i))
        parts.append(_text(left + 90 * i + 26, 16, name))
    for i, (label, rates) in enumerate(rows):
        y = top + pitch * i + pitch / 2
        parts.append(_text(left - 8, y + 4, show(label, LABEL), anchor="end"))
        for j, rate in enumerate(rates):
            at = y + 14 * (j - (len(rates) - 1) / 2)
            parts.append(_whisker(x, at, rate, j))
            parts.append(_text(WIDTH - RIGHT + 8, at + 4, percent(rate).replace(" %", ""), cls="dim"))
    return _drawing(WIDTH, bottom + 24, title, f"{len(rows)} rows of {', '.join(names)} in percent.", parts)


def scatter(groups: Sequence[tuple[str, np.ndarray]], *, title: str) -> Markup:
    """Points [m, 2] of two groups: dots and crosses, with the same scale on both axes' own ranges."""
    size, height = 340.0, 290.0
    every = np.concatenate([points for _, points in groups])
    x = Scale(*_span(every[:, 0].tolist(), zero=False), 12, size - 12)
    y = Scale(*_span(every[:, 1].tolist(), zero=False), height - 30, 34)
    parts = [f'<rect class="frame" x="4" y="28" width="{_px(size - 8)}" height="{_px(height - 52)}"/>']
    for i, (name, points) in enumerate(groups):
        mark = "h0" if i == 0 else "m-3-3l6 6m0-6l-6 6"
        path = "".join(f"M{_px(x(a))} {_px(y(b))}{mark}" for a, b in points.tolist())
        parts.append(f'<path class="{"dots" if i == 0 else "crosses"}" d="{path}"/>')
        parts.append(f'<path class="{"dots" if i == 0 else "crosses"}" d="M{12 + 160 * i} 14{mark}"/>')
        parts.append(_text(22 + 160 * i, 18, f"{name} (n {len(points):,})"))
    parts.append(_text(size / 2, height - 8, "first component", cls="dim", anchor="middle"))
    sizes = " and ".join(f"{len(points)} in {name}" for name, points in groups)
    return _drawing(size, height, title, f"First two principal components: {sizes}.", parts)


def histogram(
    groups: Sequence[tuple[str, np.ndarray]], *, title: str, axis: str, limit: float | None = None, bins: int = 40
) -> Markup:
    """One row of counts per group over shared bins, each row on its own scale; higher scores to the right.

    Hatched are the bins beyond `limit`; without a limit, the second group.
    """
    every = np.concatenate([values for _, values in groups])
    span = _span([float(every.min()), float(every.max())] + ([] if limit is None else [limit]), zero=False)
    x = Scale(*span, 40, WIDTH - 12)
    top, row = 20.0, 84.0
    bottom = top + row * len(groups)
    parts = _x_axis(x, top, bottom, axis)
    for i, (name, values) in enumerate(groups):
        counts, edges = np.histogram(values, bins=bins, range=span)
        base, most = top + row * (i + 1), max(int(counts.max()), 1)
        y = Scale(0, most, base, base - row + 26)
        for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if not count:
                continue
            hot = i > 0 if limit is None else (left + right) / 2 >= limit
            height = max(1.0, base - y(count))
            rect = f'x="{_px(x(left) + 0.5)}" y="{_px(base - height)}" width="{_px(x(right) - x(left) - 1)}"'
            parts.append(f'<rect class="{"hot" if hot else "bar"}" {rect} height="{_px(height)}"/>')
        parts.append(_line(40, base, WIDTH - 12, base, "axis"))
        parts.append(_text(34, y(most) + 4, f"{most:,}", cls="dim", anchor="end"))
        parts.append(_text(WIDTH - 14, base - row + 18, f"{name} (n {len(values):,})", anchor="end"))
    if limit is not None:
        parts += _limit_line(x(limit), top, bottom, f"limit {number(limit)}", WIDTH)
    return _drawing(WIDTH, bottom + 40, title, f"Counts of scores in {bins} bins, one row per group.", parts)


def curve(points: Sequence[tuple[float, float]], *, title: str, axes: tuple[str, str], mark: float | None) -> Markup:
    """A line through points whose y is at least 1, on a logarithmic y axis; `mark` draws a vertical line at that x."""
    height, left = 228.0, 52.0
    bottom = height - 42
    x = Scale(*_span([p[0] for p in points] + ([] if mark is None else [mark]), zero=False), left, WIDTH - 12)
    decades = max(1, math.ceil(math.log10(max(p[1] for p in points))))
    y = Scale(0, decades, bottom, 24)
    parts = _x_axis(x, 24, bottom, axes[0])
    for tick in range(decades + 1):
        parts.append(_line(left, y(tick), WIDTH - 12, y(tick), "grid"))
        parts.append(_text(left - 6, y(tick) + 4, number(10.0**tick), cls="dim", anchor="end"))
    path = "L".join(f"{_px(x(a))} {_px(y(math.log10(b)))}" for a, b in points)
    parts.append(f'<path class="curve" d="M{path}"/>')
    if mark is not None:
        parts += _limit_line(x(mark), 24, bottom, "lowest suspected score", WIDTH)
    return _drawing(WIDTH, height, title, f"{axes[1]} against {axes[0]}, logarithmic.", parts)


def _round_axis(x: Scale, top: float, bottom: float) -> list[str]:
    """An axis of whole numbers."""
    parts = []
    step = max(1, round(x.ticks()[1] - x.ticks()[0])) if len(x.ticks()) > 1 else 1
    for tick in range(math.ceil(x.low), math.floor(x.high) + 1):
        if tick % step == 0:
            parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
            parts.append(_text(x(tick), bottom + 15, str(tick), cls="dim", anchor="middle"))
    return [*parts, _text((x.start + x.end) / 2, bottom + 33, "round", cls="dim", anchor="middle")]


def _x_rounds(first: int, last: int, start: float) -> Scale:
    return Scale(first - 0.5, last + 0.5, start, WIDTH - 12)


def _window(x: Scale, window: tuple[int, int] | None, top: float, bottom: float, name: str) -> list[str]:
    """Two dashed lines around the rounds of `window`."""
    if window is None:
        return []
    ends = [x(window[0] - 0.5), x(window[1] + 0.5)]
    return [
        *(_line(at, top - 4, at, bottom, "limit") for at in ends),
        _text((ends[0] + ends[1]) / 2, top - 8, name, cls="limit-text", anchor="middle"),
    ]


def states(
    rows: Sequence[tuple[str, Sequence[bool | None]]], first: int, *, title: str, window: tuple[int, int] | None
) -> Markup:
    """One row of cells for each client, one cell for each round from `first` on: a dot accepted, hatched refused.

    None leaves the cell empty. `window` are the rounds of the attack.
    """
    left, pitch = _margin([label for label, _ in rows]), 16
    top, bottom = 26, 26 + pitch * len(rows)
    rounds = max((len(cells) for _, cells in rows), default=0)
    x = _x_rounds(first, first + max(rounds, 1) - 1, left)
    half = max(1.0, (x(1) - x(0)) / 2 - 0.5)
    parts = _round_axis(x, top, bottom)
    for i, (label, cells) in enumerate(rows):
        y = top + pitch * i
        parts.append(_text(left - 8, y + 12, show(label, LABEL), anchor="end"))
        dots = "".join(f"M{_px(x(first + j))} {_px(y + 8)}h0" for j, cell in enumerate(cells) if cell)
        parts.append(f'<path class="dots" style="stroke-width:3" d="{dots}"/>' if dots else "")
        for j, cell in enumerate(cells):
            if cell is False:
                at = x(first + j) - half
                size = f'x="{_px(at)}" y="{_px(y + 2)}" width="{_px(2 * half)}" height="{pitch - 4}"'
                parts.append(f'<rect class="hot" {size}/>')
    parts += _window(x, window, top, bottom, "attack")
    refused = sum(cell is False for _, cells in rows for cell in cells)
    return _drawing(WIDTH, bottom + 40, title, f"{len(rows)} clients, {rounds} rounds, {refused} refused.", parts)


def courses(
    series: Sequence[tuple[str, Sequence[float | None]]], first: int, *, title: str, window: tuple[int, int] | None
) -> Markup:
    """At most two lines of shares, 0 to 1, over the rounds from `first` on; the second is dashed."""
    height, left = 228.0, 52.0
    top, bottom = 44.0, height - 42
    rounds = max(len(values) for _, values in series)
    x, y = _x_rounds(first, first + rounds - 1, left), Scale(0, 1, bottom, top)
    parts = _round_axis(x, top, bottom)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(left, y(tick), WIDTH - 12, y(tick), "grid"))
        parts.append(_text(left - 6, y(tick) + 4, f"{100 * tick:.0f} %", cls="dim", anchor="end"))
    for i, (name, values) in enumerate(series):
        points = [f"{_px(x(first + j))} {_px(y(value))}" for j, value in enumerate(values) if value is not None]
        cls = "course-b" if i else "curve"
        parts.append(f'<path class="{cls}" d="M{"L".join(points)}"/>' if points else "")
        parts.append(_line(left + 170 * i, 12, left + 170 * i + 22, 12, cls))
        parts.append(_text(left + 170 * i + 28, 16, name))
    parts += _window(x, window, top, bottom, "attack")
    return _drawing(WIDTH, height, title, f"{' and '.join(name for name, _ in series)} over {rounds} rounds.", parts)
