"""When the errors of a route are those of n exact samples; the tables and the picture of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.truth_routes import ROUTES, Route

COUNTS = (10, 30, 100, 300, 1000)
# a time to n needs both
GOALS = ("relative_mse", "relative_var_error")
_SHOWN = (*GOALS, "relative_rms_error")
_LABELS = {
    "relative_mse": "mean: squared error / variance",
    "relative_var_error": "variance: mean relative error",
}
_LEAST = 1e-12  # of an error, in a logarithm
_COLOURS = (
    "black",
    "tab:gray",
    "tab:orange",
    "tab:green",
    "tab:blue",
    "tab:cyan",
    "tab:purple",
    "tab:red",
)
Errors = Mapping[str, float]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reached:
    """Seconds until both errors were as small; `sign` says if only a bound is known."""

    seconds: float
    sign: str = ""

    def __str__(self) -> str:
        """Return it as a table shows it."""
        return f"{self.sign} {self.seconds:.3g}".strip()


def time_to(points: Sequence[Row], goal: Errors) -> Reached | None:
    """The first time at which mean and variance are as good as `goal`; None without points.

    Between the budgets, log error is a line in log seconds. `≤`: the smallest budget is enough.
    `>`: the largest is not.

    Args:
        points: one a budget, `seconds` and `GOALS`, in any order.
        goal: the errors to reach, positive.
    """
    ordered = sorted(points, key=lambda point: point["seconds"])
    if not ordered:
        return None
    gaps = [[math.log(max(p[name], _LEAST) / goal[name]) for name in GOALS] for p in ordered]
    times = [math.log(point["seconds"]) for point in ordered]
    if max(gaps[0]) <= 0:
        return Reached(ordered[0]["seconds"], "≤")
    for i in range(len(ordered) - 1):
        start, stop = 0.0, 1.0  # the part of the line on which both are as good
        for before, after in zip(gaps[i], gaps[i + 1], strict=True):
            if before > 0 >= after:
                start = max(start, before / (before - after))
            elif before <= 0 < after:
                stop = min(stop, before / (before - after))
            elif before > 0:
                stop = -1.0
        if start <= stop:
            return Reached(math.exp(times[i] + start * (times[i + 1] - times[i])))
    return Reached(ordered[-1]["seconds"], ">")


def curve(rows: Sequence[Row], route: str, base: str) -> list[dict[str, float]]:
    """One point a budget: the medians over seeds of seconds and errors, ascending."""
    own = [row for row in rows if row["route"] == route and row["base"] == base]
    points = []
    for budget in sorted({row["budget"] for row in own}):
        chosen = [row for row in own if row["budget"] == budget]
        names = ("seconds", *_SHOWN)
        medians = {name: statistics.median(row[name] for row in chosen) for name in names}
        points.append({"budget": budget, **medians})
    return points


def format_tables(rows: Sequence[Row], exact: Mapping[str, Mapping[int, Errors]]) -> str:
    """All tables in Markdown; `exact` has the errors of n exact samples by base and n."""
    parts = []
    for base, goals in exact.items():
        parts += [_times_table(rows, base, goals), _errors_table(rows, base, goals)]
    return "\n".join(parts)


def _times_table(rows: Sequence[Row], base: str, goals: Mapping[int, Errors]) -> str:
    lines = [f"**{base} base: seconds of training until two passes equal n exact samples**", ""]
    lines.append("| route | " + " | ".join(f"n = {count}" for count in goals) + " |")
    lines.append("|---|" + "---|" * len(goals))
    for route in _routes_of(rows):
        points = curve(rows, route.name, base)
        cells = [str(time_to(points, goal) or "–") for goal in goals.values()]
        lines.append(f"| {route.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _errors_table(rows: Sequence[Row], base: str, goals: Mapping[int, Errors]) -> str:
    lines = [
        f"**{base} base: errors after the largest budget, %**",
        "",
        "| route | seconds | mean: squared error / variance | variance: mean relative error | "
        "relative rms error |",
        "|---|---|---|---|---|",
    ]
    for route in _routes_of(rows):
        for point in curve(rows, route.name, base)[-1:]:
            lines.append(f"| {route.title} | {point['seconds']:.0f} | {_per_cent(point)} |")
    for count, errors in goals.items():
        lines.append(f"| {count} exact samples | – | {_per_cent(errors)} |")
    return "\n".join(lines) + "\n"


def _per_cent(errors: Errors) -> str:
    return " | ".join(f"{100 * errors[name]:.3g}" for name in _SHOWN)


def _routes_of(rows: Sequence[Row]) -> list[Route]:
    return [route for route in ROUTES if any(row["route"] == route.name for row in rows)]


def draw(rows: Sequence[Row], exact: Mapping[str, Mapping[int, Errors]]) -> Figure:
    """Errors over seconds; a row a base, a column an error, a dashed line an n."""
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(11, 4.2 * len(exact)), layout="constrained")
    axes = figure.subplots(len(exact), len(GOALS), squeeze=False)
    for row, (base, goals) in enumerate(exact.items()):
        for column, name in enumerate(GOALS):
            _draw_curves(axes[row, column], rows, base, name)
            _draw_levels(axes[row, column], {n: goal[name] for n, goal in goals.items()})
            axes[row, column].set_title(f"{base} base", fontsize=10)
    axes[0, 0].legend(fontsize=7, loc="lower left")
    return figure


def _draw_curves(axis: Axes, rows: Sequence[Row], base: str, name: str) -> None:
    for route, colour in zip(ROUTES, _COLOURS, strict=True):
        points = curve(rows, route.name, base)
        if points:
            seconds, errors = ([point[key] for point in points] for key in ("seconds", name))
            axis.plot(seconds, errors, marker="o", ms=3, color=colour, label=route.title)
    axis.set_xscale("log")
    axis.set_yscale("log")
    budgets = sorted({row["budget"] for row in rows})
    axis.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axis.minorticks_off()
    axis.set_xlabel("seconds of training")
    axis.set_ylabel(_LABELS[name])
    axis.grid(alpha=0.3)


def _draw_levels(axis: Axes, levels: Mapping[int, float]) -> None:
    for count, level in levels.items():
        axis.axhline(level, color="tab:brown", lw=0.8, ls="--")
        axis.annotate(
            f"n = {count}",
            (1.01, level),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="center",
            fontsize=7,
            color="tab:brown",
        )
