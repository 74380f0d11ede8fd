"""The report's words and tables: which figure is called what, and the sentence at the top.

Takes the content of ``results.json`` and leaves out what it lacks. Computes no figure, draws no
plot (``report_figures``), and knows nothing of pictures (``report_gallery``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.report.html import Child, Html, Rows, join, number, table, tag

Summary = Mapping[str, Any]

# (section, key, label, key of the noise floor)
COMPARISONS: dict[str, Sequence[tuple[str, str, str, str]]] = {
    "mean of the nets against the mean of the samples": (
        ("mean", "mse", "mean squared error, grey levels²", "floor_mse"),
        ("mean", "corrected_mse", "the same less its noise floor, grey levels²", ""),
        ("mean", "relative_mse", "the latter over the samples' variance", ""),
        ("mean", "psnr", "PSNR, dB", ""),
        ("mean", "nmse", "normalised squared error", ""),
    ),
    "variance of the nets against that of the samples": (
        ("var", "var_error", "mean |difference| of the variances, grey levels²", "floor_var_error"),
        ("var", "std_error", "mean |difference| of the stds, grey levels", "floor_std_error"),
        ("var", "relative_rms_error", "relative rms error less its noise floor", ""),
        ("var", "relative_bias", "relative bias", ""),
        ("var", "correlation", "correlation of the std maps", ""),
        ("ceiling", "correlation", "correlation of the variance maps", ""),
        ("ceiling", "reliability", "reliability of the samples' variance", ""),
        ("ceiling", "disattenuated", "correlation without the samples' noise", ""),
        ("var", "num_negative", "negative variances, set to 0", ""),
    ),
}

# (label, dotted name for the nets, for the samples, what it should be)
ROUTES: dict[str, Sequence[tuple[str, str, str, str]]] = {
    "against the real image": (
        ("PSNR, dB", "high_res.psnr_net", "high_res.psnr_samples", "high"),
        ("mean |error|, grey levels", "high_res.mean_abs_error_net", "", "low"),
    ),
    "how much std is predicted": (
        ("mean std, grey levels", "var.mean_std_net", "var.mean_std_samples", "alike"),
        ("at edges, grey levels", "edges.std_at_edges", "", ""),
        ("on flat ground, grey levels", "edges.std_on_flat", "", ""),
    ),
    "calibration against the real image": (
        ("mean squared z-score", ".z2", ".z2", "1"),
        ("negative log-likelihood, nats", ".nll", ".nll", "low"),
        ("coverage of the 50 % interval", ".coverage_50", ".coverage_50", "0.50"),
        ("coverage of the 68 % interval", ".coverage_68", ".coverage_68", "0.68"),
        ("coverage of the 90 % interval", ".coverage_90", ".coverage_90", "0.90"),
        ("coverage of the 95 % interval", ".coverage_95", ".coverage_95", "0.95"),
        ("expected normalised calibration error", ".ence", ".ence", "0"),
        ("sharpness: mean std, grey levels", ".sharpness_mean_std", ".sharpness_mean_std", "low"),
        ("interval score at 90 %, grey levels", ".interval_score_90", ".interval_score_90", "low"),
        ("area under the sparsification error", ".ause", ".ause", "0"),
    ),
    "consistency with the low-res image": (
        ("rms of the block means, grey levels", "nets.mean_rms", "samples.mean_rms", "0"),
        ("std of the block means, grey levels", "", "samples.block_mean_std", "0"),
    ),
    "cost": (
        ("network evaluations per image", ".evaluations_per_image", ".evaluations_per_image", ""),
        ("seconds per image", ".seconds_per_image", ".seconds_per_image", ""),
    ),
}
_SECTION_OF_GROUP = {
    "calibration against the real image": "calibration",
    "consistency with the low-res image": "consistency",
    "cost": "cost",
}
# what a sorted gallery can be sorted by; other figures of an image go by their dotted name
FIGURE_LABELS = {
    **{f"{s}.{k}": label for part in COMPARISONS.values() for s, k, label, _ in part},
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


def look_up(summary: Summary, name: str) -> Any:
    """The figure of a dotted name; None where a part of the path is missing."""
    value: Any = summary
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def with_interval(summary: Summary, name: str) -> Html:
    """A value with its 95 % interval, if there is one, in small."""
    shown = number(look_up(summary, name))
    interval = interval_text((summary.get("intervals") or {}).get(name))
    return join(shown, tag("small", f" {interval}") if interval else None)


def interval_text(interval: Any) -> str:
    """``[low, high]`` as people read it; empty where there is none."""
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return ""
    return f"{number(interval[0], 3)} to {number(interval[1], 3)}"


def headline(summary: Summary) -> list[str]:
    """The verdict in words: the given one, else a sentence made of the figures."""
    given = [(summary.get(part) or {}).get("text") for part in ("verdict", "truth")]
    sentences = [text for text in given if isinstance(text, str) and text]
    if sentences:
        return sentences
    relative = look_up(summary, "mean.relative_mse")
    share = None if relative is None else 100 * relative
    return [
        f"On {number(summary.get('num_images'))} images with "
        f"{number(summary.get('num_samples'))} samples each, the squared error of the mean net, "
        f"less the samples' own noise, is {number(share, 3)} % of the samples' variance; the std "
        f"of the variance net is off by {number(look_up(summary, 'var.std_error'), 3)} grey levels "
        f"on average where noise alone would give "
        f"{number(look_up(summary, 'var.floor_std_error'), 3)}, and the two std maps correlate "
        f"with {number(look_up(summary, 'var.correlation'), 3)}."
    ]


def tiles(summary: Summary) -> Html:
    """The few figures that say most, in large."""
    wanted = (
        ("mean.relative_mse", "error of the mean, over the variance", "0 is perfect"),
        ("var.correlation", "correlation of the std maps", "1 is perfect, without noise"),
        ("ceiling.disattenuated", "the same without the samples' noise", "1 is perfect"),
        ("calibration.nets.z2", "mean squared z-score of the nets", "1 is calibrated"),
        ("calibration.nets.coverage_90", "real pixels in the nets' 90 % interval", "0.90 wanted"),
        ("high_res.psnr_net", "PSNR of the mean net, dB", ""),
        ("cost.nets.evaluations_per_image", "evaluations per image, nets", ""),
    )
    items: list[Html] = []
    for name, label, remark in wanted:
        value = look_up(summary, name)
        if value is None or (name == "high_res.psnr_net" and len(items) > 4):
            continue
        if name.startswith("high_res"):
            bilinear = number(look_up(summary, "high_res.psnr_bilinear"))
            remark = f"bilinear upsampling: {bilinear}"
        elif name.startswith("cost"):
            samples = look_up(summary, "cost.samples.evaluations_per_image")
            remark = "" if samples is None else f"samples: {number(samples)}"
        big = tag("dd", number(value, 3), tag("small", remark))
        items.append(tag("div", tag("dt", label), big))
    return tag("dl", *items, class_="tiles")


def verdict_table(summary: Summary) -> Html | None:
    """Verdict, value and interval of mean, variance and bias (90 %: of a test of equivalence)."""
    verdict = summary.get("verdict") or {}
    names = {"mean": "mean", "variance": "variance", "bias": "bias"}
    rows: list[Sequence[Child]] = []
    for key, label in names.items():
        part = verdict.get(key)
        if isinstance(part, Mapping):
            interval = interval_text(part.get("interval")) or "–"
            said = str(part.get("verdict") or "–").replace("_", " ")
            rows.append([label, said, number(part.get("value")), interval])
    if not rows:
        return None
    margin = verdict.get("margin")
    caption = "Verdict" if margin is None else f"Verdict, within a margin of {number(margin)}"
    return table(caption, ["", "verdict", "value", "90 % interval"], [Rows("", rows)])


def truth_table(summary: Summary) -> Html | None:
    """Nets and samples against the known law, where the data have one."""
    truth = summary.get("truth") or {}
    routes = {name: _flat(truth.get(name)) for name in ("nets", "samples", "expected")}
    keys = list(dict.fromkeys(key for part in routes.values() for key in part))
    if not keys:
        return None
    rows = [[_words(key), *(number(part.get(key)) for part in routes.values())] for key in keys]
    return table("Against the exact law", ["", *routes], [Rows("", rows)])


def _flat(part: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return {} if part is None else {prefix: part}
    found: dict[str, Any] = {}
    for key, value in part.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", ": ") or "value"


def comparison_table(summary: Summary) -> Html:
    """Nets against samples: value, 95 % interval, and what perfect nets would show."""
    groups = []
    intervals = summary.get("intervals") or {}
    for heading, rows in COMPARISONS.items():
        lines: list[Sequence[Child]] = []
        for section, key, label, floor in rows:
            if not isinstance(summary.get(section), Mapping) or key not in summary[section]:
                continue
            interval = interval_text(intervals.get(f"{section}.{key}"))
            floor_text = number(summary[section].get(floor)) if floor else ""
            value = number(summary[section][key])
            lines.append([label, value, *([interval] if intervals else []), floor_text])
        if lines:
            groups.append(Rows(heading, lines))
    head = ["figure", "value", *(["95 % interval"] if intervals else []), "noise floor"]
    return table("Nets against samples", head, groups)


def routes_table(summary: Summary) -> Html:
    """What each route says on its own: the two nets, and the moments of the samples."""
    groups = []
    for heading, rows in ROUTES.items():
        section = _SECTION_OF_GROUP.get(heading)
        lines: list[Sequence[Child]] = []
        for label, nets, samples, wanted in rows:
            names = [_route_name(section, "nets", nets), _route_name(section, "samples", samples)]
            if all(look_up(summary, name) is None for name in names):
                continue
            cells = [with_interval(summary, name) if name else None for name in names]
            lines.append([label, *cells, wanted])
        if heading == "against the real image" and lines:
            bilinear = number(look_up(summary, "high_res.psnr_bilinear"))
            lines[0] = [*lines[0][:3], f"above {bilinear}, bilinear"]
        if lines:
            groups.append(Rows(heading, lines))
    head = ["figure", "nets", "samples", "wanted"]
    small = " (small: 95 % intervals)" if summary.get("intervals") else ""
    return table(f"The two routes to mean and variance{small}", head, groups)


def _route_name(section: str | None, route: str, name: str) -> str:
    if section is None or not name:
        return name
    return f"{section}.{route}{name}" if name.startswith(".") else f"{section}.{name}"


def budget_table(summary: Summary) -> Html | None:
    """Where the error comes from, cause by cause."""
    budget = summary.get("budget")
    if not budget:
        return None
    keys = ("relative_mse", "relative_var_error")
    rows = [[str(row.get("row", "")), *(number(row.get(key)) for key in keys)] for row in budget]
    head = ["cause", "error of the mean, over the variance", "relative error of the variance"]
    return table("Error budget", head, [Rows("", rows)])
