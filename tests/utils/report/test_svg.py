"""Plots: where values land, which are left out, and that no style is needed."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.report.html import Axis, Series, bars, nice_ticks, plot


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_numbers_inside_the_range(low: float, length: float) -> None:
    ticks = nice_ticks(low, low + length)
    assert 2 <= len(ticks) <= 6
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert max(steps) - min(steps) <= 1e-6 * max(1, max(steps))
    assert all(low - 1e-6 * length <= t <= low + length * (1 + 1e-6) for t in ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.1, 1e9))
def test_logarithmic_ticks_lie_inside_and_are_not_too_many(low: float, factor: float) -> None:
    axis = Axis("x", low, low * factor, True)
    ticks = axis.ticks()
    assert len(ticks) <= 7 and all(axis.can_show(t) for t in ticks)


def test_range_holds_all_finite_values_and_zero() -> None:
    axis = Axis.over("x", [1.0, None, math.nan, 5.0])
    assert axis.low == 0 and axis.high >= 5
    assert all(Axis.over("x", [0.01, None, 0.0, 5.0], is_log=True).can_show(v) for v in (0.01, 5.0))
    for empty in (Axis.over("x", []), Axis.over("x", [0.0, 0.0]), Axis.over("x", [], is_log=True)):
        assert empty.high > empty.low and empty.ticks() is not None


def _places(markup: str, css: str) -> list[tuple[float, float]]:
    path = re.search(rf'd="([^"]*)" class="{css}"', markup)
    assert path
    return [(float(a), float(b)) for a, b in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path[1])]


def test_values_land_in_proportion_and_larger_ones_higher() -> None:
    axis = Axis("x", 0.0, 10.0)
    markup = plot("alt", axis, axis, [Series("s", [0, 5, 10], [0, 5, 10], "series-a")]).markup
    (x0, y0), (x1, y1), (x2, y2) = _places(markup, "line series-a")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x2 > x0
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y2 < y0


def test_missing_values_and_those_outside_are_left_out() -> None:
    axis = Axis("x", 0.0, 10.0)
    series = Series("s", [1, None, 3, 4, 99], [1, 2, None, math.nan, 4], "series-a", "points")
    markup = plot("alt", axis, axis, [series]).markup.partition("</svg>")[0]
    assert markup.count("<circle") == 1
    assert "nan" not in markup
    markup = plot("alt", axis, axis, [replace(series, kind="crosses")]).markup
    assert markup.partition("</svg>")[0].count("l8 8") == 1


def test_nothing_to_draw_is_an_empty_plot() -> None:
    axis = Axis("x", 0.0, 1.0)
    for kind in ("line", "points", "dots", "crosses"):
        markup = plot("alt", axis, axis, [Series("s", [], [], "series-a", kind)]).markup  # type: ignore[arg-type]
        assert 'aria-label="alt"' in markup


def test_plots_carry_no_style_and_escape_their_labels() -> None:
    axis = Axis("<b>x</b>", 0.0, 1.0)
    markup = plot("<i>", axis, axis, [Series("<u>", [0, 1], [0, 1], "series-a")]).markup
    markup += bars("<i>", ["<u>", "b"], [1.0, None], "series-b").markup
    assert "style=" not in markup and not re.search("<[biu]>", markup)


def test_bars_are_as_long_as_their_values() -> None:
    markup = bars("alt", ["a", "b", "c"], [1.0, 0.5, None], "series-a").markup
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', markup)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2) and widths[2] == 0
