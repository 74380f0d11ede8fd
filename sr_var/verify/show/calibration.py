"""The calibration metrics, printed and on the page, each beside what an exact law would show."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sr_var.verify.numbers.calibration import COVERAGES
from sr_var.verify.numbers.equivalent import PAIRED
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.show.meanings import explained
from utils.report import html
from utils.report.html import Html, Rows, join, number, tag

_FAIR = "fair_"
HEADING = "calibration against the real image"
# metric of a route → in words
CALIBRATION = {
    "z2": "mean squared z-score",
    "nll": "negative log-likelihood, nats",
    "crps": "CRPS, grey levels",
    **{f"coverage_{p}": f"coverage of the {p} % interval" for p in COVERAGES},
    "ence": "expected normalised calibration error",
    "sharpness_mean_std": "sharpness: mean std, grey levels",
    "interval_score_90": "interval score at 90 %, grey levels",
    "ause": "area under the sparsification error",
    "spread_skill_ratio": "spread and skill: rms std / rmse",
    "spread_skill_slope": "slope of ln rmse over ln std",
}


def calibration_lines(summary: Summary) -> list[str]:
    """The printed rows, at most 100 columns wide."""
    routes = list(summary["calibration"])
    head = "".join(f"{route:>10}{'exact':>9}" for route in routes)
    title = "  nets, 95 %" if summary["intervals"] else ""
    lines = [f"{HEADING:<42}{head}{title}"]
    for key, label in CALIBRATION.items():
        cells = "".join(
            f"{_shown(value):>10}{'' if exact is None else _shown(exact):>9}"
            for value, exact in _pairs(summary, key)
        )
        interval = summary["intervals"].get(f"calibration.nets.{key}")
        said = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        lines.append(f"  {label:<40}{cells}  {said}".rstrip())
    return lines


def paired_lines(summary: Summary) -> list[str]:
    """Nets less samples, as measured and against infinitely many samples; none without samples."""
    if "paired" not in summary:
        return []
    head = "nets less samples (below 0: the nets are better)"
    title = "  fair, 95 %" if summary["intervals"] else ""
    lines = [f"{head:<52}{'as is':>9}{'fair':>9}{title}"]
    for key in PAIRED:
        values = "".join(f"{_shown(summary['paired'][name]):>9}" for name in (key, f"{_FAIR}{key}"))
        interval = summary["intervals"].get(f"paired.{_FAIR}{key}")
        said = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        lines.append(f"  {CALIBRATION[key]:<50}{values}  {said}".rstrip())
    return lines


def paired_table(summary: Summary) -> Html | None:
    """The same on the page."""
    if "paired" not in summary:
        return None
    rows: list[list[Html | str | None]] = []
    for key in PAIRED:
        names = key, f"{_FAIR}{key}"
        cells = [_with_interval(summary, f"paired.{of}", summary["paired"][of]) for of in names]
        rows.append([explained(CALIBRATION[key], f"calibration.{key}"), *cells])
    caption = "Nets less samples: below 0 the nets predict the real image better"
    head = ["score", "as measured", "fair: without what so few samples lose"]
    return html.table(caption, head, [Rows("", rows)])


def _with_interval(summary: Summary, name: str, value: float | None) -> Html:
    interval = summary["intervals"].get(name)
    said = interval and f" {number(interval[0], 3)} to {number(interval[1], 3)}"
    return join(number(value), tag("small", said) if said else None)


def calibration_table(summary: Summary) -> Html:
    """The same on the page, with the intervals of all values in small.

    A last column has what samples in the place of the real image show.
    """
    routes, left_out = list(summary["calibration"]), summary["reference"].get("sampler_law", {})
    rows: list[list[Html | str | None]] = []
    for key, label in CALIBRATION.items():
        cells: list[Html | str | None] = []
        for route, (value, exact) in zip(routes, _pairs(summary, key), strict=True):
            cells.append(_with_interval(summary, f"calibration.{route}.{key}", value))
            cells.append("" if exact is None else number(exact))
        if left_out:
            cells.append(number(left_out[key]) if key in left_out else "")
        rows.append([explained(label, f"calibration.{key}"), *cells])
    exact_of = {"nets": "exact nets", "samples": "exact samples"}
    head = ["metric", *(name for route in routes for name in (route, exact_of[route]))]
    head += ["samples left out"] if left_out else []
    return html.table(f"{HEADING.capitalize()}: {_said(summary)}", head, [Rows("", rows)])


def _pairs(summary: Summary, key: str) -> Iterator[tuple[float | None, float | None]]:
    """Value and what an exact law would show (None: it does not tell), of each route.

    The known law goes before the normal one.
    """
    reference = summary["reference"]
    for route, found in summary["calibration"].items():
        of_normal = reference["samples"] if route == "samples" else reference["nets"]
        of_law = reference.get("known_law", {}).get(route, of_normal)
        yield found.get(key), of_law.get(key)


def _said(summary: Summary) -> str:
    law = "the known law" if "known_law" in summary["reference"] else "a normal law"
    n = summary["num_samples"]
    said = f"exact is what {law} shows" + (f", and {n} samples of it" if n else "")
    if "sampler_law" in summary["reference"]:
        said += "; left out are samples that took the place of the real image"
    return said


def _shown(value: float | None) -> str:
    return "?" if value is None or math.isnan(value) else f"{value:.4g}"
