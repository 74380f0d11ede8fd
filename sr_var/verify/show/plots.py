"""The page's plots: which curves of `results.json` are drawn against what, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sr_var.verify.numbers.calibration import Curves
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.read.records import BudgetRow, ErrorInBudget
from sr_var.verify.show.tables import BELOW_NOISE, budget_table
from utils.report.html import Axis, Html, Rows, Series, bars, figure, join, number, plot, table, tag

_COLOURS = {"nets": "series-a", "samples": "series-b"}
_MAX_POINTS = 3000
_NUM_BANDS = 10
Values = Sequence[float]
# values of x and y by route
_Pairs = dict[str, tuple[Values, Values]]


def plots(summary: Summary, rows: Sequence[Mapping[str, float]]) -> Html:
    """All plots of a verification; `rows` are the metrics of each image."""
    curves = summary["curves"]
    drawn = (
        _reliability(_pairs(curves, "reliability", "predicted_std", "rmse")),
        _coverage(_pairs(curves, "coverage", "nominal", "observed")),
        _sparsification(curves, summary["reference"]["curves"]["nets"]),
        _scatter(summary["scatter"]) if "scatter" in summary else None,
        _floors(rows) if "mean" in summary else None,
        _budget(summary.get("budget", [])),
    )
    return tag("div", *drawn, class_="plots")


def _pairs(curves: Mapping[str, Curves], kind: str, x: str, y: str) -> _Pairs:
    routes = [route for route in _COLOURS if route in curves]
    return {route: (curves[route][kind][x], curves[route][kind][y]) for route in routes}


def _series(pairs: _Pairs, kind: Literal["line", "points"]) -> list[Series]:
    return [Series(route, *pair, _COLOURS[route], kind) for route, pair in pairs.items()]


def _numbers(caption: str, head: Sequence[str], pairs: _Pairs) -> Html:
    groups = [
        Rows(route, [[number(x), number(y)] for x, y in zip(*pair, strict=True)])
        for route, pair in pairs.items()
    ]
    return table(caption, head, groups)


def _diagonal(low: float, high: float, label: str) -> Series:
    return Series(label, [low, high], [low, high], "reference")


def _said(pairs: _Pairs) -> str:
    """From where to where each curve runs."""
    ends = {route: (_pair(pair, 0), _pair(pair, -1)) for route, pair in pairs.items()}
    return "; ".join(f"{route} from {first} to {last}" for route, (first, last) in ends.items())


def _pair(pair: tuple[Values, Values], place: int) -> str:
    return f"({number(pair[0][place], 3)}, {number(pair[1][place], 3)})"


def _reliability(pairs: _Pairs) -> Html:
    flat = [value for pair in pairs.values() for part in pair for value in part]
    is_log = all(value > 0 for value in flat)
    x_axis = Axis.over("predicted std, grey levels", flat, is_log=is_log)
    y_axis = Axis.over("rms error, grey levels", flat, is_log=is_log)
    lines = [_diagonal(x_axis.low, x_axis.high, "calibrated"), *_series(pairs, "points")]
    alt = f"Rms error against predicted std: {_said(pairs)}"
    note = "Pixels sorted by predicted std: on the diagonal, the error is as large as predicted."
    head = ["predicted std", "rms error"]
    data = _numbers("Rms error by predicted std, grey levels", head, pairs)
    return figure("Reliability", plot(alt, x_axis, y_axis, lines), note, data)


def _coverage(pairs: _Pairs) -> Html:
    x_axis = Axis("nominal coverage of the interval", 0.0, 1.0)
    y_axis = Axis("share of real pixels inside", 0.0, 1.0)
    lines = [_diagonal(0.0, 1.0, "calibrated"), *_series(pairs, "points")]
    ends = "; ".join(f"{route} end at {_pair(pair, -1)}" for route, pair in pairs.items())
    alt = f"Observed against nominal coverage: {ends}"
    note = "Above the diagonal the intervals are too wide, below it too narrow."
    data = _numbers("Coverage of central intervals", ["nominal", "observed"], pairs)
    return figure("Coverage", plot(alt, x_axis, y_axis, lines), note, data)


def _sparsification(curves: Mapping[str, Curves], exact: Curves) -> Html:
    pairs = _pairs(curves, "sparsification", "fraction", "rmse")
    oracle = _pairs(curves, "sparsification", "fraction", "oracle_rmse")
    flat = [value for part in (pairs, oracle) for pair in part.values() for value in pair[1]]
    x_axis = Axis("share of pixels removed, most uncertain first", 0.0, 1.0)
    y_axis = Axis.over("rms error of the rest, grey levels", flat)
    reference = Series("removed by true error", *oracle["nets"], "reference")
    of_exact = exact["sparsification"]
    best = Series("exact nets", of_exact["fraction"], of_exact["rmse"], "reference series-a")
    lines = [reference, best, *_series(pairs, "line")]
    alt = f"Rms error of the remaining pixels as the most uncertain are removed: {_said(pairs)}"
    note = "The faster it falls, the better the std tells where the errors are."
    data = _numbers("Rms error of the rest", ["share removed", "rms error"], pairs)
    return figure("Sparsification", plot(alt, x_axis, y_axis, lines), note, data)


def _scatter(scatter: Mapping[str, list[float]]) -> Html:
    step = -(-len(scatter["std_samples"]) // _MAX_POINTS)
    x, y = scatter["std_samples"][::step], scatter["std_nets"][::step]
    top = Axis.over("", [*x, *y]).high
    x_axis = Axis("std of the samples, grey levels", 0.0, top)
    y_axis = Axis("std of the nets, grey levels", 0.0, top)
    lines = [Series("pixels", x, y, "series-a", "dots"), _diagonal(0.0, top, "equal")]
    bands = _bands(x, y)
    ends = f"from ({bands[0][0]}, {bands[0][1]}) to ({bands[-1][0]}, {bands[-1][1]})"
    alt = f"Std of the nets against std of the samples, pixel by pixel; means by tenth run {ends}"
    head = ["mean std of the samples", "mean std of the nets", "pixels"]
    data = table("Pixels by tenths of the samples' std", head, [Rows("", bands)])
    note = "A pixel each. The samples' std scatters too: even perfect nets would show a cloud."
    return figure(
        "Std of the nets and of the samples", plot(alt, x_axis, y_axis, lines), note, data
    )


def _bands(x: Values, y: Values) -> list[list[str]]:
    """Mean of x and y in equally filled bands of x: what a reader takes from a scatter plot."""
    pairs = np.array(sorted(zip(x, y, strict=True)))
    parts = np.array_split(pairs, min(_NUM_BANDS, len(pairs)))
    return [[number(float(v)) for v in part.mean(axis=0)] + [str(len(part))] for part in parts]


def _floors(rows: Sequence[Mapping[str, float]]) -> Html | None:
    kept = rows[:: -(-len(rows) // _MAX_POINTS)]
    x, y = ([row[name] for row in kept] for name in ("mean.floor_mse", "mean.mse"))
    flat = [value for value in [*x, *y] if value > 0]
    if len(flat) < 2:
        return None
    axis = Axis.over("", flat, is_log=True)
    x_axis = Axis("noise floor, grey levels²", axis.low, axis.high, True)
    y_axis = Axis("squared error, grey levels²", axis.low, axis.high, True)
    kind: Literal["points", "dots"] = "points" if len(x) == 1 else "dots"
    lines = [_diagonal(axis.low, axis.high, "all of it noise")]
    lines.append(Series("images", x, y, "series-a large", kind))
    above = [error / floor for floor, error in zip(x, y, strict=True) if floor > 0]
    ratio = number(float(np.median(above)), 3) if above else "–"
    alt = (
        "Squared error of the mean net against the noise floor of the samples, image by image; "
        f"the error is {ratio} times the floor for the median image"
    )
    note = (
        "An image each. The noise floor is what exact nets would show, since the samples are noisy "
        f"themselves; for the median image the error is {ratio} times that."
    )
    data = table("By tenths of the floor", ["floor", "error", "images"], [Rows("", _bands(x, y))])
    return figure("Error and noise floor", plot(alt, x_axis, y_axis, lines), note, data)


def _budget(rows: Sequence[BudgetRow]) -> Html | None:
    if not rows:
        return None
    labels = [row["row"] for row in rows]
    drawn: list[Html] = []
    parts: tuple[tuple[ErrorInBudget, str, str], ...] = (
        ("relative_mse", "error of the mean, % of the variance", "series-a"),
        ("relative_var_error", "relative error of the variance, %", "series-b"),
    )
    found: list[float | None] = []
    for key, what, colour in parts:
        errors = [row.get(key) for row in rows]
        if any(error is not None for error in errors):
            values = [None if error is None else 100 * error for error in errors]
            said = ", ".join(f"{a} {number(b, 3)}" for a, b in zip(labels, values, strict=True))
            drawn.append(tag("p", what, class_="note"))
            drawn.append(bars(f"Error budget, {what}: {said}", labels, values, colour))
            found += values
    note = "Where the error comes from."
    if any(value is not None and value < 0 for value in found):
        note += f" {BELOW_NOISE}"
    return figure("Error budget", join(*drawn), note, budget_table(rows))
