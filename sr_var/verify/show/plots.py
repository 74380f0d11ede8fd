"""The page's plots: which curves of `results.json` are drawn against what, and in which words.

A curve that is missing gives no plot. Drawing itself is `utils.report.html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from sr_var.verify.numbers.calibration import Curves
from sr_var.verify.numbers.metrics import Metrics
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.read.records import ErrorInBudget
from sr_var.verify.show.tables import budget_table
from utils.report.html import (
    Axis,
    Child,
    Html,
    Rows,
    Series,
    bars,
    figure,
    join,
    number,
    plot,
    table,
    tag,
)

_ROUTES = {"nets": "series-a", "samples": "series-b"}
_MAX_POINTS = 3000
_NUM_BANDS = 10
Values = Sequence[float | None]


def plots(summary: Summary, rows: Sequence[Mapping[str, Metrics]]) -> Html | None:
    """All plots there are values for; None if there is none.

    Args:
        summary: the content of ``results.json``.
        rows: the metrics of each image, by section.
    """
    curves = summary.get("curves") or {}
    drawn = [
        _reliability(curves),
        _coverage(curves),
        _sparsification(curves),
        _scatter(summary.get("scatter") or {}),
        _floors(rows),
        _budget(summary),
    ]
    there = [part for part in drawn if part is not None]
    return tag("div", *there, class_="plots") if there else None


def _curves(
    curves: Mapping[str, Curves], kind: str, x: str, y: str
) -> dict[str, tuple[Values, Values]]:
    """route → values of x and y, of the routes that have them."""
    found: dict[str, tuple[Values, Values]] = {}
    for route in _ROUTES:
        curve = (curves.get(route) or {}).get(kind) or {}
        if curve.get(x) and curve.get(y) and len(curve[x]) == len(curve[y]):
            found[route] = (list(curve[x]), list(curve[y]))
    return found


def _numbers(caption: str, head: Sequence[str], found: Mapping[str, tuple[Values, ...]]) -> Html:
    groups = []
    for route, columns in found.items():
        lines: list[Sequence[Child]] = [
            [number(v) for v in line] for line in zip(*columns, strict=True)
        ]
        groups.append(Rows(route if len(found) > 1 else "", lines))
    return table(caption, head, groups)


def _diagonal(low: float, high: float, label: str) -> Series:
    return Series(label, [low, high], [low, high], "reference")


def _reliability(curves: Mapping[str, Curves]) -> Html | None:
    found = _curves(curves, "reliability", "predicted_std", "rmse")
    if not found:
        return None
    flat = [v for pair in found.values() for part in pair for v in part]
    is_log = all(v is None or v > 0 for v in flat)
    x_axis = Axis.over("predicted std, grey levels", flat, is_log=is_log)
    y_axis = Axis.over("rms error, grey levels", flat, is_log=is_log)
    lines = [_diagonal(x_axis.low, x_axis.high, "calibrated")]
    lines += [Series(route, *pair, _ROUTES[route], "points") for route, pair in found.items()]
    alt = "Rms error against predicted std: " + "; ".join(
        f"{route} from {_pair(pair, 0)} to {_pair(pair, -1)}" for route, pair in found.items()
    )
    note = "Pixels sorted by predicted std: on the diagonal, the error is as large as predicted."
    head = ["predicted std", "rms error"]
    data = _numbers("Rms error by predicted std, grey levels", head, found)
    return figure("Reliability", plot(alt, x_axis, y_axis, lines), note, data)


def _pair(pair: tuple[Values, Values], place: int) -> str:
    return f"({number(pair[0][place], 3)}, {number(pair[1][place], 3)})"


def _coverage(curves: Mapping[str, Curves]) -> Html | None:
    found = _curves(curves, "coverage", "nominal", "observed")
    if not found:
        return None
    x_axis = Axis("nominal coverage of the interval", 0.0, 1.0)
    y_axis = Axis("share of real pixels inside", 0.0, 1.0)
    lines = [_diagonal(0.0, 1.0, "calibrated")]
    lines += [Series(route, *pair, _ROUTES[route], "points") for route, pair in found.items()]
    alt = "Observed against nominal coverage: " + "; ".join(
        f"{route} end at {_pair(pair, -1)}" for route, pair in found.items()
    )
    note = "Above the diagonal the intervals are too wide, below it too narrow."
    data = _numbers("Coverage of central intervals", ["nominal", "observed"], found)
    return figure("Coverage", plot(alt, x_axis, y_axis, lines), note, data)


def _sparsification(curves: Mapping[str, Curves]) -> Html | None:
    found = _curves(curves, "sparsification", "fraction", "rmse")
    if not found:
        return None
    oracle = _curves(curves, "sparsification", "fraction", "oracle_rmse")
    flat = [v for part in (found, oracle) for pair in part.values() for v in pair[1]]
    x_axis = Axis("share of pixels removed, most uncertain first", 0.0, 1.0)
    y_axis = Axis.over("rms error of the rest, grey levels", flat)
    lines = []
    for route in list(oracle)[:1]:
        lines.append(Series("removed by true error", *oracle[route], "reference"))
    lines += [Series(route, *pair, _ROUTES[route], "line") for route, pair in found.items()]
    alt = "Rms error of the remaining pixels as the most uncertain are removed: " + "; ".join(
        f"{route} from {_pair(pair, 0)} to {_pair(pair, -1)}" for route, pair in found.items()
    )
    note = "The faster it falls, the better the std tells where the errors are."
    data = _numbers("Rms error of the rest", ["share removed", "rms error"], found)
    return figure("Sparsification", plot(alt, x_axis, y_axis, lines), note, data)


def _scatter(scatter: Mapping[str, list[float]]) -> Html | None:
    x_all, y_all = scatter.get("std_samples") or [], scatter.get("std_nets") or []
    if not x_all or len(x_all) != len(y_all):
        return None
    kept = range(0, len(x_all), -(-len(x_all) // _MAX_POINTS))
    x, y = [x_all[i] for i in kept], [y_all[i] for i in kept]
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
    pairs = sorted((a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None)
    if not pairs:
        return [["–", "–", "0"]]
    parts = np.array_split(np.array(pairs), min(_NUM_BANDS, len(pairs)))
    return [[number(float(v)) for v in part.mean(axis=0)] + [str(len(part))] for part in parts]


def _floors(rows: Sequence[Mapping[str, Metrics]]) -> Html | None:
    pairs = [(row.get("mean", {}).get("floor_mse"), row.get("mean", {}).get("mse")) for row in rows]
    kept = pairs[:: max(1, -(-len(pairs) // _MAX_POINTS))]
    x, y = [a for a, _ in kept], [b for _, b in kept]
    flat = [v for v in [*x, *y] if v is not None and v > 0]
    if len(flat) < 2:
        return None
    axis = Axis.over("", flat, is_log=True)
    x_axis = Axis("noise floor, grey levels²", axis.low, axis.high, True)
    y_axis = Axis("squared error, grey levels²", axis.low, axis.high, True)
    kind: Literal["points", "dots"] = "points" if len(x) == 1 else "dots"
    lines = [_diagonal(axis.low, axis.high, "all of it noise")]
    lines.append(Series("images", x, y, "series-a large", kind))
    above = [b / a for a, b in kept if a and b is not None and a > 0]
    ratio = number(float(np.median(above)), 3) if above else "–"
    alt = (
        "Squared error of the mean net against the noise floor of the samples, image by image; "
        f"the error is {ratio} times the floor for the median image"
    )
    note = f"An image each; for the median image the error is {ratio} times the floor."
    data = table("By tenths of the floor", ["floor", "error", "images"], [Rows("", _bands(x, y))])
    return figure("Error and noise floor", plot(alt, x_axis, y_axis, lines), note, data)


def _budget(summary: Summary) -> Html | None:
    data = budget_table(summary)
    if data is None:
        return None
    budget = summary["budget"]
    labels = [str(row.get("row", "")) for row in budget]
    drawn: list[Html] = []
    parts: tuple[tuple[ErrorInBudget, str, str], ...] = (
        ("relative_mse", "error of the mean, over the variance", "series-a"),
        ("relative_var_error", "relative error of the variance", "series-b"),
    )
    for key, what, colour in parts:
        values = [row.get(key) for row in budget]
        if any(value is not None for value in values):
            said = ", ".join(f"{a} {number(b, 3)}" for a, b in zip(labels, values, strict=True))
            drawn.append(tag("p", what, class_="note"))
            drawn.append(bars(f"Error budget, {what}: {said}", labels, values, colour))
    return figure("Error budget", join(*drawn), "Where the error comes from.", data)
