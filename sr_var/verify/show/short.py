"""The printed table: the metrics that say most, each with what is good, in 25 lines at most.

Of several mean nets there is one more.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from sr_var.verify.numbers.summary import Summary
from sr_var.verify.show.headline import (
    counts,
    details,
    exact_value,
    headline,
    known_number,
    of_input,
)
from utils.report.html import number

WIDTH = 100
_LABEL_WIDTH, _WIDTHS = 46, (11, 10, 9)
_NOTE = (
    "good: what an exact mean and variance would show here, or whether high or low is better. "
    "All metrics: --full_table True, logs.txt and report.html."
)


class _Line(NamedTuple):
    """A metric: its names (dotted) by route, and what is good: a word, or the name of a number."""

    label: str
    nets: str
    samples: str = ""
    good: str = ""


def _calibration(label: str, key: str, good: str = "") -> _Line:
    return _Line(label, f"calibration.nets.{key}", f"calibration.samples.{key}", good or f"={key}")


def _truth(label: str, key: str) -> _Line:
    return _Line(label, *(f"truth.{of}.{key}" for of in ("nets", "samples", "expected")))


_LINES: dict[str, Sequence[_Line]] = {
    "do the intervals hold?": (
        _calibration("real pixels in the 95 % interval, share", "coverage_95"),
        _calibration("squared error over variance (z2)", "z2"),
        _calibration("error of mean and std together (CRPS)", "crps"),
        _Line("mean std, grey levels", "var.mean_std_net", "var.mean_std_samples", "alike"),
        _Line("mean std between the mean nets", "epistemic.mean_std"),
        _calibration("does the std sort the errors? (AUSE)", "ause"),
        _Line("variances below 0, set to 0, of {}", "var.num_negative", "", "0"),
        _Line("calibrated: real pixels in the {:g} % interval", "calibrated.coverage"),
    ),
    "is the mean good?": (
        _Line("PSNR, dB", "high_res.psnr_net", "high_res.psnr_samples", "high"),
        _Line("PSNR of bilinear upsampling, dB", "high_res.psnr_bilinear", "", "below"),
        _Line("SSIM, at most 1", "high_res.ssim_net", "high_res.ssim_samples", "high"),
        _Line(
            "shrunk, off the low-res image by (rms)",
            "consistency.nets.mean_rms",
            "consistency.samples.mean_rms",
            "0",
        ),
    ),
    "do nets and samples agree? (less the samples' noise)": (
        _Line("means apart (rms), over the std", "mean.relative_rms_error", "", "0"),
        _Line("variances apart (rms), over the variance", "var.relative_rms_error", "", "0"),
        _Line("mean variance over that of the samples, − 1", "var.relative_bias", "", "0"),
        _Line("correlation of the std maps", "ceiling.std_disattenuated", "", "1"),
    ),
    "against the known law": (
        _truth("mean: squared error over the variance", "relative_mse"),
        _truth("variance: mean relative error", "relative_var_error"),
    ),
    "what does it take?": (
        _Line(
            "network evaluations an image",
            "cost.nets.evaluations_per_image",
            "cost.samples.evaluations_per_image",
            "low",
        ),
        _Line(
            "seconds an image",
            "cost.nets.seconds_per_image",
            "cost.samples.seconds_per_image",
            "low",
        ),
    ),
}


def short_table(summary: Summary) -> str:
    """At most 25 lines of metrics, 100 columns wide, and the findings in words below.

    Of several mean nets there is one line more. What a summary knows nothing of has no line.
    """
    columns = ["nets", "samples", "good"] if summary["num_samples"] else ["nets", "good"]
    titles = "".join(f"{title:>{_WIDTHS[i]}}" for i, title in enumerate(columns))
    interval = "  nets, 95 %" if summary["intervals"] else ""
    lines = [f"{counts(summary):<{_LABEL_WIDTH}}{titles}{interval}"]
    for heading, rows in _LINES.items():
        shown = [row for row in rows if known_number(summary, row.nets) is not None]
        if shown:
            lines += [heading, *(_line(summary, row) for row in shown)]
    return "\n".join([*lines, *textwrap.wrap(_NOTE, WIDTH), "", findings(summary)])


def findings(summary: Summary) -> str:
    """Headline and verdicts, without metrics."""
    said = [" ".join(headline(summary)), *details(summary)]
    return "\n".join(line for text in said for line in textwrap.wrap(text, WIDTH))


def _line(summary: Summary, row: _Line) -> str:
    label = of_input(row.label.format(_argument(summary, row)), summary)
    cells = [_cell(known_number(summary, row.nets))]
    if summary["num_samples"]:
        cells.append(_cell(known_number(summary, row.samples)))
    cells.append(_good(summary, row))
    shown = "".join(f"{cell:>{_WIDTHS[i]}}" for i, cell in enumerate(cells))
    interval = summary["intervals"].get(row.nets)
    said = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
    return f"  {label:<{_LABEL_WIDTH - 2}}{shown}  {said}".rstrip()


def _argument(summary: Summary, row: _Line) -> str | float:
    """What stands in a label: the level of a calibrated interval, or what a count is of."""
    if row.nets.startswith("calibrated."):
        return 100 * summary["calibrated"]["level"]
    return number(known_number(summary, "var.num_values"))


def _good(summary: Summary, row: _Line) -> str:
    if row.nets.startswith("calibrated."):
        return f"{summary['calibrated']['level']:.4g}"
    if row.good.startswith("="):
        return _cell(exact_value(summary, row.good[1:])) or "low"
    return _cell(known_number(summary, row.good)) if "." in row.good else row.good


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:{'.6g' if value.is_integer() else '.4g'}}"  # counts in full
