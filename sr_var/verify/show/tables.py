"""The words and tables of a verification and an error budget, printed and on the page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from sr_var.verify.numbers.floors import TruthSection
from sr_var.verify.numbers.intervals import VerdictOfPart
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.read.records import BudgetRow
from utils.report import html
from utils.report.html import Html, Rows, join, number, tag

_WIDTH = 100
# nets, samples
_Names = tuple[str, str]


def _of_both(section: str, name: str) -> _Names:
    """Dotted names of a metric that both routes have."""
    return f"{section}.nets.{name}", f"{section}.samples.{name}"


def _calibrated(name: str) -> _Names:
    return _of_both("calibration", name)


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
    ("  mean of error² / variance", *_calibrated("z2"), ""),
    ("  negative log-likelihood", *_calibrated("nll"), ""),
    ("  inside the 68 % interval", *_calibrated("coverage_68"), ""),
    ("  inside the 95 % interval", *_calibrated("coverage_95"), ""),
    ("  90 % interval score, grey levels", *_calibrated("interval_score_90"), ""),
    ("  calibration error of the std (ENCE)", *_calibrated("ence"), ""),
    ("  sparsification error (AUSE)", *_calibrated("ause"), ""),
    ("consistency with the low-res image, grey levels", "", "", ""),
    ("  rms of area(mean) − X", "consistency.nets.mean_rms", "consistency.samples.mean_rms", ""),
    ("  std of block means", "", "consistency.samples.block_mean_std", ""),
    ("std of the nets at edges, grey levels", "edges.std_at_edges", "", ""),
    ("std of the nets on flat ground, grey levels", "edges.std_on_flat", "", ""),
    ("network evaluations per image", *_of_both("cost", "evaluations_per_image"), ""),
    ("seconds per image", *_of_both("cost", "seconds_per_image"), ""),
)


# (dotted name, label, dotted name of the noise floor)
_COMPARISONS: dict[str, Sequence[tuple[str, str, str]]] = {
    "mean of the nets against the mean of the samples": (
        ("mean.mse", "mean squared error, grey levels²", "mean.floor_mse"),
        ("mean.corrected_mse", "the same less its noise floor, grey levels²", ""),
        ("mean.relative_mse", "the latter over the samples' variance", ""),
        ("mean.psnr", "PSNR, dB", ""),
        ("mean.nmse", "normalised squared error", ""),
    ),
    "variance of the nets against that of the samples": (
        (
            "var.var_error",
            "mean |difference| of the variances, grey levels²",
            "var.floor_var_error",
        ),
        ("var.std_error", "mean |difference| of the stds, grey levels", "var.floor_std_error"),
        ("var.relative_rms_error", "relative rms error less its noise floor", ""),
        ("var.relative_bias", "relative bias", ""),
        ("var.correlation", "correlation of the std maps", ""),
        ("ceiling.correlation", "correlation of the variance maps", ""),
        ("ceiling.reliability", "reliability of the samples' variance", ""),
        ("ceiling.disattenuated", "correlation without the samples' noise", ""),
        ("var.num_negative", "negative variances, set to 0", ""),
    ),
}

# (label, dotted names, what it should be; {} stands for the PSNR of bilinear upsampling)
_OF_ROUTES: dict[str, Sequence[tuple[str, _Names, str]]] = {
    "against the real image": (
        ("PSNR, dB", ("high_res.psnr_net", "high_res.psnr_samples"), "above {}, bilinear"),
        ("mean |error|, grey levels", ("high_res.mean_abs_error_net", ""), "low"),
    ),
    "how much std is predicted": (
        ("mean std, grey levels", ("var.mean_std_net", "var.mean_std_samples"), "alike"),
        ("at edges, grey levels", ("edges.std_at_edges", ""), ""),
        ("on flat ground, grey levels", ("edges.std_on_flat", ""), ""),
    ),
    "calibration against the real image": (
        ("mean squared z-score", _calibrated("z2"), "1"),
        ("negative log-likelihood, nats", _calibrated("nll"), "low"),
        *(
            (f"coverage of the {p} % interval", _calibrated(f"coverage_{p}"), f"0.{p}")
            for p in (50, 68, 90, 95)
        ),
        ("expected normalised calibration error", _calibrated("ence"), "0"),
        ("sharpness: mean std, grey levels", _calibrated("sharpness_mean_std"), "low"),
        ("interval score at 90 %, grey levels", _calibrated("interval_score_90"), "low"),
        ("area under the sparsification error", _calibrated("ause"), "0"),
    ),
    "consistency with the low-res image": (
        ("rms of the block means, grey levels", _of_both("consistency", "mean_rms"), "0"),
        ("std of the block means, grey levels", ("", "consistency.samples.block_mean_std"), "0"),
    ),
    "cost": (
        ("network evaluations per image", _of_both("cost", "evaluations_per_image"), ""),
        ("seconds per image", _of_both("cost", "seconds_per_image"), ""),
    ),
}
_TILES = (
    ("mean.relative_mse", "error of the mean, over the variance", "0 is perfect"),
    ("var.correlation", "correlation of the std maps", "1 is perfect, without noise"),
    ("ceiling.disattenuated", "the same without the samples' noise", "1 is perfect"),
    ("calibration.nets.z2", "mean squared z-score of the nets", "1 is calibrated"),
    ("calibration.nets.coverage_90", "real pixels in the nets' 90 % interval", "0.90 wanted"),
)
# what a sorted gallery can be sorted by; other metrics of an image go by their dotted name
METRIC_LABELS = {
    **{name: label for part in _COMPARISONS.values() for name, label, _ in part},
    "mean.corrected_mse": "squared error of the mean less its noise floor, grey levels²",
    "mean.relative_mse": "squared error of the mean over the samples' variance",
    "mean.mse": "mean squared error of the mean, grey levels²",
    "mean.psnr": "PSNR of the mean against the samples', dB",
    "mean.nmse": "normalised squared error of the mean",
    "mean.floor_mse": "noise floor of the squared error, grey levels²",
    "var.floor_var_error": "noise floor of the variances' difference, grey levels²",
    "var.floor_std_error": "noise floor of the stds' difference, grey levels",
    "var.mean_std_net": "mean std of the nets, grey levels",
    "var.mean_std_samples": "mean std of the samples, grey levels",
    "high_res.psnr_net": "PSNR of the mean net, dB",
    "high_res.psnr_samples": "PSNR of the samples' mean, dB",
    "high_res.psnr_bilinear": "PSNR of bilinear upsampling, dB",
    "high_res.mean_abs_error_net": "mean |error| of the mean net, grey levels",
    "edges.std_at_edges": "std at edges, grey levels",
    "edges.std_on_flat": "std on flat ground, grey levels",
}


def look_up(summary: Summary, name: str) -> object:
    """What has a dotted name; None where a part of the path is missing."""
    value: object = summary
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text_table(summary: Summary) -> str:
    """The headline metrics as text, at most 100 columns wide, and the verdicts below.

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


def _truth_lines(truth: TruthSection) -> list[str]:
    lines = [f"{'against the exact law':<44}{'nets':>10}{'samples':>10}{'expected':>9}"]
    routes = (truth["nets"], truth["samples"], truth["expected"])
    for label, key in (
        ("  mean: squared error / variance", "relative_mse"),
        ("  variance: mean relative error", "relative_var_error"),
        ("  variance: relative bias", "var_bias"),
    ):
        cells = [f"{route[key]:.4g}" for route in routes]
        lines.append(f"{label:<44}{cells[0]:>10}{cells[1]:>10}{cells[2]:>9}")
    return [*lines, *textwrap.wrap(truth["text"], _WIDTH)]


def _shown(summary: Summary, name: str) -> str:
    if not name:
        return ""
    value = look_up(summary, name)
    is_known = isinstance(value, (int, float)) and not math.isnan(value)
    return f"{value:.4g}" if is_known else "?"


def budget_text(rows: Sequence[BudgetRow]) -> str:
    """The rows of an error budget as text."""
    head = f"{'':<42}{'mean: error²':>14}{'variance: error':>17}{'bias':>9}"
    units = f"{'':<42}{'/ mean var':>14}{'rms, relative':>17}"
    lines = [head, units]
    for row in rows:
        errors = (row["relative_mse"], row["relative_var_error"], row["var_bias"])
        cells = ["" if error is None else f"{100 * error:.2f} %" for error in errors]
        lines.append(f"{row['row']:<42}{cells[0]:>14}{cells[1]:>17}{cells[2]:>9}".rstrip())
    return "\n".join(lines)


def headline(summary: Summary) -> list[str]:
    """The verdict in words."""
    said = [summary["verdict"]["text"]]
    return [*said, summary["truth"]["text"]] if "truth" in summary else said


def tiles(summary: Summary) -> Html:
    """The few metrics that say most, in large."""
    samples = look_up(summary, "cost.samples.evaluations_per_image")
    remark = "" if samples is None else f"samples: {number(samples)}"
    cost = ("cost.nets.evaluations_per_image", "evaluations per image, nets", remark)
    items = [
        tag(
            "div",
            tag("dt", label),
            tag("dd", number(look_up(summary, name), 3), tag("small", said)),
        )
        for name, label, said in (*_TILES, cost)
    ]
    return tag("dl", *items, class_="tiles")


def verdict_table(summary: Summary) -> Html:
    """Verdict, value and interval of mean, variance and bias (90 %: of a test of equivalence)."""
    verdict = summary["verdict"]
    parts: dict[str, VerdictOfPart] = {
        "mean": verdict["mean"],
        "variance": verdict["variance"],
        "bias": verdict["bias"],
    }
    rows = [
        [
            label,
            (part["verdict"] or "–").replace("_", " "),
            number(part["value"]),
            _interval(part["interval"]) or "–",
        ]
        for label, part in parts.items()
    ]
    caption = f"Verdict, within a margin of {number(verdict['margin'])}"
    return html.table(caption, ["", "verdict", "value", "90 % interval"], [Rows("", rows)])


def truth_table(summary: Summary) -> Html | None:
    """Nets and samples against the known law, where the data have one."""
    if "truth" not in summary:
        return None
    truth = summary["truth"]
    routes = {"nets": truth["nets"], "samples": truth["samples"], "expected": truth["expected"]}
    rows = [
        [key.replace("_", " "), *(number(part[key]) for part in routes.values())]
        for key in truth["nets"]
    ]
    return html.table("Against the exact law", ["", *routes], [Rows("", rows)])


def comparison_table(summary: Summary) -> Html:
    """Nets against samples: value, 95 % interval, and what perfect nets would show."""
    intervals = summary["intervals"]
    groups = []
    for heading, rows in _COMPARISONS.items():
        lines = []
        for name, label, floor in rows:
            interval = [_interval(intervals.get(name))] if intervals else []
            floor_text = number(look_up(summary, floor)) if floor else ""
            lines.append([label, number(look_up(summary, name)), *interval, floor_text])
        groups.append(Rows(heading, lines))
    head = ["metric", "value", *(["95 % interval"] if intervals else []), "noise floor"]
    return html.table("Nets against samples", head, groups)


def routes_table(summary: Summary) -> Html:
    """What each route says on its own: the two nets, and the moments of the samples."""
    bilinear = number(look_up(summary, "high_res.psnr_bilinear"))
    groups = []
    for heading, rows in _OF_ROUTES.items():
        lines = [
            [label, *_cells(summary, names), wanted.format(bilinear)]
            for label, names, wanted in rows
            if any(look_up(summary, name) is not None for name in names)
        ]
        groups.append(Rows(heading, lines))
    head = ["metric", "nets", "samples", "wanted"]
    small = " (small: 95 % intervals)" if summary["intervals"] else ""
    return html.table(f"The two routes to mean and variance{small}", head, groups)


def _cells(summary: Summary, names: _Names) -> Iterator[Html | None]:
    """Values with their 95 % intervals, where there are any, in small."""
    for name in names:
        interval = _interval(summary["intervals"].get(name))
        small = tag("small", f" {interval}") if interval else None
        yield join(number(look_up(summary, name)), small) if name else None


def _interval(interval: Sequence[float] | None) -> str:
    """`[low, high]` as people read it; empty where there is none."""
    return "" if interval is None else f"{number(interval[0], 3)} to {number(interval[1], 3)}"


def budget_table(rows: Sequence[BudgetRow]) -> Html:
    """Where the error comes from, cause by cause."""
    lines = [
        [row["row"], number(row.get("relative_mse")), number(row.get("relative_var_error"))]
        for row in rows
    ]
    head = ["cause", "error of the mean, over the variance", "relative error of the variance"]
    return html.table("Error budget", head, [Rows("", lines)])
