"""The words and tables of a verification and an error budget, printed and on the page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sr_var.verify.numbers.floors import TruthSection
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.read.records import BUDGET_ERRORS, BudgetRow, ErrorInBudget
from sr_var.verify.show.calibration import CALIBRATION, HEADING, calibration_lines, paired_lines
from sr_var.verify.show.epistemic import epistemic_lines
from sr_var.verify.show.headline import counts, look_up, of_input
from sr_var.verify.show.meanings import explained
from utils.metrics import percent_in_table
from utils.report import html
from utils.report.html import Html, Rows, join, number, tag

_WIDTH = 100
_FLOOR = (
    "good: what exact nets show, since so few samples are noisy themselves (the noise floor), or "
    "what a metric should be like."
)
BELOW_NOISE = "Below 0: with the samples' own noise taken off, no error is left to be seen."


class _Row(NamedTuple):
    """A metric in words; the names are dotted, and empty for what there is not."""

    label: str
    nets: str = ""
    samples: str = ""
    floor: str = ""
    wanted: str = ""


def _both(label: str, name: str, wanted: str = "") -> _Row:
    """A row of a metric that both routes have."""
    section, _, key = name.rpartition(".")
    return _Row(label, f"{section}.nets.{key}", f"{section}.samples.{key}", "", wanted)


_NEGATIVE = _Row("negative variances of {}, set to 0", "var.num_negative", wanted="0")
_COMPARISONS: dict[str, Sequence[_Row]] = {
    "mean of the nets against that of the samples": (
        _Row("mean squared error (mse), grey levels²", "mean.mse", "", "mean.floor_mse"),
        _Row("mse less its noise floor, grey levels²", "mean.corrected_mse", wanted="0"),
        _Row("mse over variance, noise floor subtracted", "mean.relative_mse", wanted="0"),
        _Row("PSNR, dB", "mean.psnr", wanted="high"),
        _Row("normalised squared error (nmse)", "mean.nmse", wanted="0"),
    ),
    "variance of the nets against that of the samples": (
        _Row(
            "mean |difference| (var error), grey levels²",
            "var.var_error",
            "",
            "var.floor_var_error",
        ),
        _Row(
            "the same of stds (std error), grey levels", "var.std_error", "", "var.floor_std_error"
        ),
        _Row("relative rms error less its noise floor", "var.relative_rms_error", wanted="0"),
        _Row("relative bias", "var.relative_bias", wanted="0"),
        _Row("correlation of the std maps", "var.correlation", wanted="high"),
        _Row("correlation of stds without the noise", "ceiling.std_disattenuated", wanted="1"),
        _Row("correlation of the variance maps", "ceiling.correlation", wanted="high"),
        _Row("reliability of the samples' variance", "ceiling.reliability", wanted="1"),
        _Row("correlation of variances without the noise", "ceiling.disattenuated", wanted="1"),
        _NEGATIVE,
    ),
}
_SPREAD = "how much std is predicted"
_OF_ROUTES: dict[str, Sequence[_Row]] = {
    "against the real image": (
        _Row("PSNR, dB", "high_res.psnr_net", "high_res.psnr_samples", "", "high"),
        _Row("PSNR of bilinear upsampling, dB", "high_res.psnr_bilinear", wanted="below"),
        _Row("SSIM", "high_res.ssim_net", "high_res.ssim_samples", "", "high"),
        _Row("SSIM of bilinear upsampling", "high_res.ssim_bilinear", wanted="below"),
        _Row("mean |error|, grey levels", "high_res.mean_abs_error_net", "", "", "low"),
    ),
    _SPREAD: (
        _Row("mean std, grey levels", "var.mean_std_net", "var.mean_std_samples", "", "alike"),
        _Row("std at edges, grey levels", "edges.std_at_edges", wanted="higher"),
        _Row("std on flat ground, grey levels", "edges.std_on_flat", wanted="lower"),
    ),
    HEADING: [_both(label, f"calibration.{key}") for key, label in CALIBRATION.items()],
    "consistency with the low-res image": (
        _both("rms of the block means, grey levels", "consistency.mean_rms", "0"),
        _Row(
            "std of the block means, grey levels", "", "consistency.samples.block_mean_std", "", "0"
        ),
    ),
    "cost": (
        _both("network evaluations per image", "cost.evaluations_per_image", "low"),
        _both("seconds per image", "cost.seconds_per_image", "low"),
    ),
}
_SECTIONS = {**_COMPARISONS, **_OF_ROUTES}
_TILES = (
    ("calibration.nets.coverage_95", "real pixels in the nets' 95 % interval", "0.95 is right"),
    ("calibration.nets.z2", "squared error over predicted variance", "1 is right"),
    ("high_res.psnr_net", "PSNR of the mean, dB", "higher is better"),
    ("high_res.psnr_bilinear", "PSNR of bilinear upsampling, dB", "to be beaten"),
    ("var.mean_std_net", "mean std, grey levels", "as large as the errors"),
    ("ceiling.std_disattenuated", "do the std maps agree? Correlation", "1 is right"),
)
_OF_TRUTH = {
    "relative_mse": "mean: squared error over the variance",
    "relative_var_error": "variance: mean relative error",
    "relative_rms_error": "variance: relative rms error",
    "var_bias": "variance: relative bias",
    "var_error": "variance: mean |error|, grey levels²",
    "std_error": "std: mean |error|, grey levels",
    "equivalent_samples_mean": "mean: worth in exact samples",
    "equivalent_samples_variance": "variance: worth in exact samples",
}
# what a sorted gallery can be sorted by; other metrics of an image go by their dotted name
METRIC_LABELS = {
    name: f"{heading}: {row.label.replace(' of {}', '')}{which}"
    for heading, rows in _SECTIONS.items()
    for row in rows
    for name, which in (
        (row.nets, ", nets" if row.samples else ""),
        (row.samples, ", samples"),
        (row.floor, ", noise floor"),
    )
}


def text_table(summary: Summary) -> str:
    """The headline metrics as text, at most 100 columns wide, and the verdicts below.

    Good is the noise floor, what exact nets show against this many samples, where there is one; the
    interval is the 95 % interval of the first column, over independent images or photographs
    (`clusters`), where there are enough of them. Without samples their columns are left out, and so
    are the rows that need them.
    """
    head = counts(summary)
    has_samples = summary["num_samples"] > 0
    columns = ["nets", "samples", "good"] if has_samples else ["nets", "good"]
    widths = (10, 9, 9)
    titles = "".join(f"{title:>{width}}" for title, width in zip(columns, widths, strict=False))
    lines = [f"{head:<46}{titles}{'  nets, 95 %' if summary['intervals'] else ''}"]
    for heading, rows in (_SECTIONS if has_samples else _of_nets(summary)).items():
        if heading == HEADING:
            lines += calibration_lines(summary) + paired_lines(summary)
            continue
        lines.append(heading)
        for row in rows:
            cells = [_shown(summary, name) for name in row[1 : len(columns)]]
            cells.append(_shown(summary, row.floor) if row.floor else row.wanted)
            shown = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
            interval = summary["intervals"].get(row.nets)
            said = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
            lines.append(f"  {_label(row, summary):<44}{shown}  {said}".rstrip())
    lines += epistemic_lines(summary)
    lines += textwrap.wrap(_FLOOR if has_samples else "", _WIDTH)
    if "calibrated" in summary:
        lines += _calibrated_lines(summary)
    if "truth" in summary:
        lines += _truth_lines(summary["truth"])
    return "\n".join(lines)


def _calibrated_lines(summary: Summary) -> list[str]:
    title = "intervals as they come, and calibrated"
    said = "  after, 95 %" if "calibrated.coverage" in summary["intervals"] else ""
    lines = [f"{title:<46}{'before':>10}{'after':>10}{said}"]
    for label, before, after in _calibrated_rows(summary):
        cells = f"{_shown(summary, before):>10}{_shown(summary, after):>10}"
        interval = summary["intervals"].get(after)
        said = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        lines.append(f"  {label:<44}{cells}  {said}".rstrip())
    return lines


def _calibrated_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Label, and the names of the values before and after."""
    level = 100 * summary["calibrated"]["level"]
    return [
        (
            f"coverage of the {level:g} % interval",
            "calibrated.raw_coverage",
            "calibrated.coverage",
        ),
        ("mean width, grey levels", "calibrated.raw_mean_width", "calibrated.mean_width"),
    ]


def left_out_text(summary: Summary) -> str:
    """Which averages are without how many images; empty where all are of all of them."""
    by_count: dict[int, list[str]] = {}
    for name, count in summary["left_out"].items():
        label = METRIC_LABELS.get(name, name)
        by_count.setdefault(count, []).append(label.partition(": ")[2] or label)
    images = number(summary["num_images"])
    return " ".join(
        f"{number(count)} of {images} images have no finite value and are left out of: "
        f"{'; '.join(labels)}."
        for count, labels in by_count.items()
    )


def _label(row: _Row, summary: Summary) -> str:
    """In words, with the number of values that a count is of."""
    return of_input(row.label.format(number(look_up(summary, "var.num_values"))), summary)


def _of_nets(summary: Summary) -> dict[str, Sequence[_Row]]:
    """The sections that need no samples, without the rows that the summary knows nothing of."""
    found = {**_OF_ROUTES}
    mean_std, *others = found[_SPREAD]  # there is nothing that it should be like
    found[_SPREAD] = [mean_std._replace(wanted="low"), *others, _NEGATIVE]
    return {
        heading: [row for row in rows if look_up(summary, row.nets) is not None]
        for heading, rows in found.items()
    }


def _truth_lines(truth: TruthSection) -> list[str]:
    lines = [f"{'against the exact law':<44}{'nets':>11}{'samples':>11}{'expected':>10}"]
    routes = (truth["nets"], truth["samples"], truth["expected"])
    for label, key in (
        ("  mean: squared error / variance", "relative_mse"),
        ("  variance: mean relative error", "relative_var_error"),
        ("  variance: relative bias", "var_bias"),
        ("  mean: worth in exact samples", "equivalent_samples_mean"),
        ("  variance: worth in exact samples", "equivalent_samples_variance"),
    ):
        cells = [f"{route[key]:.4g}" for route in routes]
        lines.append(f"{label:<44}{cells[0]:>11}{cells[1]:>11}{cells[2]:>10}")
    return lines


def _shown(summary: Summary, name: str) -> str:
    if not name:
        return ""
    value = look_up(summary, name)
    if not isinstance(value, (int, float)) or math.isnan(value):
        return "?"
    return f"{value:{'.6g' if float(value).is_integer() else '.4g'}}"  # counts in full


def budget_text(rows: Sequence[BudgetRow]) -> str:
    """The rows of an error budget as text, at most 100 columns wide."""
    heads = ("mean: error²", "variance: error"), ("/ mean variance", "rms, relative")
    lines = [f"{'in %, [95 % intervals]':<38}" + "".join(f"{head:>21}" for head in heads[0])]
    lines[0] += f"{'bias':>20}"
    lines.append(" " * 38 + "".join(f"{head:>21}" for head in heads[1]))
    for row in rows:
        cells = [_budget_cell(row, key) for key in BUDGET_ERRORS]
        lines.append(f"{row['row']:<38}{cells[0]:>21}{cells[1]:>21}{cells[2]:>20}".rstrip())
    if any((row.get(key) or 0) < 0 for row in rows for key in BUDGET_ERRORS[:2]):
        lines += textwrap.wrap(BELOW_NOISE, _WIDTH)
    return "\n".join(lines)


def _budget_cell(row: BudgetRow, key: ErrorInBudget) -> str:
    """Value and interval in per cent, as `2.74 [2.1, 3.4]`."""
    value, interval = row.get(key), (row.get("intervals") or {}).get(key)
    if value is None:
        return ""
    ends = ", ".join(map(percent_in_table, interval)) if interval else ""
    return percent_in_table(value) + (f" [{ends}]" if ends else "")


def tiles(summary: Summary) -> Html:
    """The few metrics that say most, in large."""
    samples = look_up(summary, "cost.samples.evaluations_per_image")
    remark = "" if samples is None else f"samples: {number(samples)}"
    shown = [tile for tile in _TILES if look_up(summary, tile[0]) is not None]
    cost = ("cost.nets.evaluations_per_image", "network evaluations an image", remark)
    items = [
        tag(
            "div",
            tag("dt", of_input(label, summary)),
            tag("dd", number(look_up(summary, name), 3), tag("small", said)),
        )
        for name, label, said in (*shown, cost)
    ]
    return tag("dl", *items, class_="tiles")


def verdict_table(summary: Summary) -> Html | None:
    """Verdict, value and interval of mean, variance and bias (of a test of equivalence)."""
    if "verdict" not in summary:
        return None
    verdict = summary["verdict"]
    parts = {
        "mean: rms error over the std": verdict["mean"],
        "variance: rms error over itself": verdict["variance"],
        "variance: bias over itself": verdict["bias"],
    }
    rows = [
        [
            explained(label, f"verdict.{label}"),
            (part["verdict"] or "–").replace("_", " "),
            number(part["value"]),
            _interval(part["interval"]) or "–",
        ]
        for label, part in parts.items()
    ]
    margin, level = number(verdict["margin"]), number(verdict["level"], 3)
    caption = f"Verdict, within a margin of {margin} (intervals of level {level})"
    if all(part["interval"] is None for part in parts.values()) and "clusters" in summary:
        caption = f"No verdict within a margin of {margin}: {summary['clusters']['text']}"
    return html.table(caption, ["", "verdict", "value", "interval"], [Rows("", rows)])


def truth_table(summary: Summary) -> Html | None:
    """Nets and samples against the known law, where the data have one."""
    if "truth" not in summary:
        return None
    truth = summary["truth"]
    routes = {"nets": truth["nets"], "samples": truth["samples"], "expected": truth["expected"]}
    rows = [
        [
            explained(_OF_TRUTH.get(key, key.replace("_", " ")), f"truth.{key}"),
            *(number(part[key]) for part in routes.values()),
        ]
        for key in truth["nets"]
    ]
    n = number(summary["num_samples"])
    head = ["", "nets", f"mean and variance of {n} samples", f"expected of {n} exact samples"]
    return html.table("Against the exact law", head, [Rows("", rows)])


def calibrated_table(summary: Summary) -> Html | None:
    """Coverage and width of the intervals as they come, and calibrated."""
    if "calibrated" not in summary:
        return None
    rows = [
        [label, *_cells(summary, (before, after))]
        for label, before, after in _calibrated_rows(summary)
    ]
    has_intervals = "calibrated.coverage" in summary["intervals"]
    small = " (small: 95 % intervals over photographs)" if has_intervals else ""
    small = small.replace("photograph", summary["calibrated"]["cluster"])
    head = ["", "as they come", "calibrated"]
    return html.table(f"Intervals as they come, and calibrated{small}", head, [Rows("", rows)])


def comparison_table(summary: Summary) -> Html:
    """Nets against samples: value, 95 % interval, and what perfect nets would show."""
    intervals = summary["intervals"]
    groups = []
    for heading, rows in _COMPARISONS.items():
        lines = []
        for row in rows:
            interval = [_interval(intervals.get(row.nets))] if intervals else []
            floor = number(look_up(summary, row.floor)) if row.floor else row.wanted
            label = explained(_label(row, summary), row.nets)
            lines.append([label, number(look_up(summary, row.nets)), *interval, floor])
        groups.append(Rows(heading, lines))
    head = ["metric", "value", *(["95 % interval"] if intervals else []), "good"]
    return html.table("Do nets and samples agree?", head, groups)


def routes_table(summary: Summary) -> Html:
    """What each route says on its own: the two nets, and the moments of the samples."""
    routes = ["nets", "samples"] if summary["num_samples"] else ["nets"]
    groups = []
    for heading, rows in (_OF_ROUTES if len(routes) > 1 else _of_nets(summary)).items():
        if heading == HEADING:
            continue  # in a table of its own
        lines = [
            [
                explained(_label(row, summary), row.nets or row.samples),
                *_cells(summary, row[1 : 1 + len(routes)]),
                row.wanted,
            ]
            for row in rows
            if any(look_up(summary, name) is not None for name in row[1:3])
        ]
        groups.append(Rows(heading, lines))
    small = " (small: 95 % intervals)" if summary["intervals"] else ""
    caption = "Each on its own: nets, and mean and variance of the samples"
    caption = caption if len(routes) > 1 else "The nets"
    return html.table(caption + small, ["metric", *routes, "good"], groups)


def _cells(summary: Summary, names: Sequence[str]) -> Iterator[Html | None]:
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
    lines = [[row["row"], *(_budget_cell(row, key) for key in BUDGET_ERRORS)] for row in rows]
    head = [
        "cause",
        "error of the mean, % of the variance",
        "relative error of the variance, %",
        "its bias, %",
    ]
    return html.table("Error budget, with 95 % intervals", head, [Rows("", lines)])
