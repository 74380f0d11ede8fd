"""The table and the sentences that the verification prints; computes no figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 100


def _of_both(section: str, name: str) -> tuple[str, str]:
    """Dotted names of a figure that both routes have: nets, samples."""
    return f"{section}.nets.{name}", f"{section}.samples.{name}"


# label, then dotted names: nets, samples, noise floor; the interval is that of the nets
_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("mean of the nets against that of the samples", "", "", ""),
    ("  mse, grey levels²", "mean.mse", "", "mean.floor_mse"),
    ("  mse / variance, floor subtracted", "mean.relative_mse", "", ""),
    ("  psnr, dB", "mean.psnr", "", ""),
    ("  nmse", "mean.nmse", "", ""),
    ("variance of the nets against that of the samples", "", "", ""),
    ("  var error, grey levels²", "var.var_error", "", "var.floor_var_error"),
    ("  std error, grey levels", "var.std_error", "", "var.floor_std_error"),
    ("  relative rms error, floor subtracted", "var.relative_rms_error", "", ""),
    ("  relative bias", "var.relative_bias", "", ""),
    ("  mean std, grey levels", "var.mean_std_net", "var.mean_std_samples", ""),
    ("  correlation of the two std maps", "var.correlation", "", ""),
    ("  of the variances; reliability", "ceiling.correlation", "ceiling.reliability", ""),
    ("  the same, disattenuated", "ceiling.disattenuated", "", ""),
    ("against the real high-res image", "", "", ""),
    ("  psnr, dB", "high_res.psnr_net", "high_res.psnr_samples", ""),
    ("  psnr of bilinear upsampling, dB", "high_res.psnr_bilinear", "", ""),
    ("  mean of error² / variance", *_of_both("calibration", "z2"), ""),
    ("  negative log-likelihood", *_of_both("calibration", "nll"), ""),
    ("  inside the 68 % interval", *_of_both("calibration", "coverage_68"), ""),
    ("  inside the 95 % interval", *_of_both("calibration", "coverage_95"), ""),
    ("  90 % interval score, grey levels", *_of_both("calibration", "interval_score_90"), ""),
    ("  calibration error of the std (ENCE)", *_of_both("calibration", "ence"), ""),
    ("  sparsification error (AUSE)", *_of_both("calibration", "ause"), ""),
    ("consistency with the low-res image, grey levels", "", "", ""),
    ("  rms of area(mean) − X", "consistency.nets.mean_rms", "consistency.samples.mean_rms", ""),
    ("  std of block means", "", "consistency.samples.block_mean_std", ""),
    ("std of the nets at edges, grey levels", "edges.std_at_edges", "", ""),
    ("std of the nets on flat ground, grey levels", "edges.std_on_flat", "", ""),
    ("network evaluations per image", *_of_both("cost", "evaluations_per_image"), ""),
    ("seconds per image", *_of_both("cost", "seconds_per_image"), ""),
)


def table(summary: Mapping[str, Any]) -> str:
    """The headline figures as text, at most 100 columns wide, and the verdicts below.

    The noise floor is what perfect nets would show against this many samples; the interval is the
    95 % bootstrap interval over images of the first column.
    """
    head = f"{summary['num_images']} images, {summary['num_samples']} samples each"
    lines = [f"{head:<44}{'nets':>10}{'samples':>10}{'floor':>9}   {'nets, 95 %'}"]
    for label, nets, samples, floor in _ROWS:
        cells = [_shown(summary, name) for name in (nets, samples, floor)]
        interval = summary["intervals"].get(nets)
        shown = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        lines.append(f"{label:<44}{cells[0]:>10}{cells[1]:>10}{cells[2]:>9}   {shown}".rstrip())
    negative = int(summary["var"]["num_negative"])
    lines.append(f"negative variances set to 0: {negative}")
    lines += textwrap.wrap(summary["verdict"]["text"], _WIDTH)
    if "truth" in summary:
        lines += _truth_lines(summary["truth"])
    return "\n".join(lines)


def _truth_lines(truth: Mapping[str, Any]) -> list[str]:
    lines = [f"{'against the exact law':<44}{'nets':>10}{'samples':>10}{'expected':>9}"]
    for label, key in (
        ("  mean: squared error / variance", "relative_mse"),
        ("  variance: mean relative error", "relative_var_error"),
        ("  variance: relative bias", "var_bias"),
    ):
        cells = [f"{truth[route][key]:.4g}" for route in ("nets", "samples", "expected")]
        lines.append(f"{label:<44}{cells[0]:>10}{cells[1]:>10}{cells[2]:>9}")
    return [*lines, *textwrap.wrap(truth["text"], _WIDTH)]


def _shown(summary: Mapping[str, Any], dotted: str) -> str:
    if not dotted:
        return ""
    value: Any = summary
    for key in dotted.split("."):
        value = value[key]
    return "?" if value is None or math.isnan(value) else f"{value:.4g}"
