"""Drawings: values at their places, and words for the rest."""

import re

import numpy as np
import pytest

from ostiary.core.records import Rate
from ostiary.report import svg
from ostiary.report.png import to_uri
from ostiary.report.words import change, number, show


def test_ticks_are_round_and_inside():
    assert svg.Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.Scale(-1.3, 5.2, 0, 100).ticks() == pytest.approx([0, 2, 4])


def test_bars_mark_what_is_beyond_and_say_what_is_missing():
    rows = [svg.Bar("a", 1.0), svg.Bar("b", 5.0, hot=True), svg.Bar("c", None)]
    drawing = svg.bars(rows, title="t", axis="x", low=2.0)
    assert drawing.count('class="bar"') == 1
    assert drawing.count('class="hot"') == 1
    assert ">-<" in drawing
    assert "limit ≥ 2" in drawing
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="16"', drawing)]
    assert widths[1] == pytest.approx(5 * widths[0], rel=0.01)


def test_intervals_have_a_whisker_per_measured_rate():
    rows = [("a", (Rate(k=1, n=10), Rate(k=9, n=10))), ("b", (Rate(k=0, n=0), Rate(k=5, n=10)))]
    drawing = svg.intervals(rows, ("before", "after"), title="t")
    assert drawing.count('class="whisker"') == 3 + 2  # and two in the legend


def test_histogram_hatches_what_lies_beyond_the_limit():
    values = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    drawing = svg.histogram([("all", values)], title="t", axis="x", limit=0.5, bins=10)
    assert drawing.count('class="hot"') == 2
    assert drawing.count('class="bar"') == 3


def test_scatter_draws_each_point_in_its_group():
    groups = [("one", np.zeros((4, 2))), ("two", np.ones((3, 2)))]
    drawing = svg.scatter(groups, title="t")
    dots, crosses = (re.findall(rf'class="{name}" d="([^"]*)"', drawing)[0] for name in ("dots", "crosses"))
    assert dots.count("h0") == 4
    assert crosses.count("m-3-3") == 3


def test_titles_are_escaped():
    assert "<b>" not in svg.bars([svg.Bar("<b>", 1.0)], title="<b>", axis="<b>")


def test_png_keeps_values_and_limits_size():
    import base64
    import io

    from PIL import Image

    def pixels(uri):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))

    image = np.zeros((3, 4, 5), np.float32)
    image[0, 1, 2] = 1.0
    assert pixels(to_uri(image, 64))[1, 2].tolist() == [255, 0, 0]
    assert pixels(to_uri(np.zeros((400, 200), np.uint8), 64)).shape == (64, 32)
    assert to_uri(image, 64) == to_uri(image.copy(), 64)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (float("nan"), "-"), (0, "0"), (-1.5, "−1.5"), (12345.6, "12,346"), (0.12345, "0.123")],
)
def test_numbers_in_words(value, words):
    assert number(value) == words


def test_change_and_show():
    assert change(Rate(k=9, n=10), Rate(k=5, n=10)) == "−40.0 points"
    assert change(Rate(k=0, n=0), Rate(k=5, n=10)) == "-"
    assert show("x" * 200, 10) == "x" * 10 + "…"
