"""The page's part on where: PIT and ranks, metrics by group, the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sr_var.verify.numbers.summary import Summary
from utils.report import html
from utils.report.html import Axis, Html, Rows, Series, figure, number, plot, tag

_SCORES = {
    "num_pixels": "pixels",
    "std": "rms std",
    "rmse": "rms error",
    "z2": "error² / variance",
    "nll": "log-likelihood, negative",
    "crps": "CRPS",
    "coverage_90": "in 90 % interval",
}
_OF_CLASS = {
    "num_images": "images",
    "mean_rms_error": "mean against samples, of a std",
    "var_rms_error": "variance against samples",
    "var_bias": "bias of the variance",
    **{key: _SCORES[key] for key in ("z2", "nll", "crps", "coverage_90")},
}
_POWERS = {
    "nets_error": "real image − mean of the nets",
    "samples_error": "real image − mean of the samples",
    "samples_spread": "spread of the samples",
    "difference": "nets − mean of the samples",
    "nets_true_error": "nets − exact mean",
}
_WORST = {
    "calibration.nets.z2": "error² / variance of the nets",
    "mean.relative_mse": "nets against samples, over the variance",
}


def groups_section(summary: Summary) -> Html:
    """Plots, then tables."""
    drawn = [_pit(summary), _ranks(summary), _frequency(summary)]
    tables = [_by_std(summary), _by_range(summary), _by_class(summary), _worst(summary)]
    return tag(
        "div",
        tag("div", *drawn, class_="plots"),
        tag("div", *tables, class_="tables"),
    )


def _pit(summary: Summary) -> Html:
    found = summary["pit"]
    nets = found["nets"]
    shapes = [("nets", nets["share"], "series-a")]
    if "samples" in found:
        shapes.append(("samples", found["samples"]["share"], "series-b"))
    note = "Flat is right. A hump is too much std, a bowl too little, a slope a mean that is off."
    return _histogram(
        "Where the real value falls in the predicted law (PIT)",
        "value of the distribution function at the real pixel",
        note,
        shapes,
        nets["expected"],
        nets["by_std"],
    )


def _ranks(summary: Summary) -> Html | None:
    if "ranks" not in summary:
        return None
    found = summary["ranks"]
    note = (
        f"Of {found['num_members']} samples: flat for an exact sampler of any law. Fair CRPS "
        f"of the samples' own law {number(found['fair_crps'])} grey levels."
    )
    return _histogram(
        "Rank of the real value among the samples",
        "share of the samples below the real pixel",
        note,
        [("samples", found["share"], "series-b")],
        found["expected"],
        found["by_std"],
    )


def _histogram(
    caption: str,
    label: str,
    note: str,
    shapes: Sequence[tuple[str, Sequence[float], str]],
    expected: Sequence[float],
    by_std: Sequence[Mapping[str, Any]],
) -> Html:
    """Shares over the bins' share, so that 1 is flat; the table has them by fifths of the std."""
    num = len(expected)
    centres = [(i + 0.5) / num for i in range(num)]
    lines = [Series("an exact law", centres, [num * x for x in expected], "reference")]
    lines += [
        Series(route, centres, [num * x for x in shares], colour, "points")
        for route, shares, colour in shapes
    ]
    top = max(2.0, *(value for line in lines for value in line.y if value is not None))
    alt = f"{caption}: " + "; ".join(
        f"{route} from {number(num * shares[0], 3)} at the low end over "
        f"{number(num * shares[num // 2], 3)} in the middle to {number(num * shares[-1], 3)}"
        for route, shares, _ in shapes
    )
    head = ["bin", *(f"std {number(group['std'], 3)}" for group in by_std)]
    rows = [
        [number(centre, 3), *(number(num * group["share"][i], 3) for group in by_std)]
        for i, centre in enumerate(centres)
    ]
    data = html.table(
        "The same by fifths of the predicted std, grey levels", head, [Rows("", rows)]
    )
    axes = Axis(label, 0.0, 1.0), Axis("pixels, over their share", 0.0, top)
    return figure(caption, plot(alt, *axes, lines), note, data)


def _frequency(summary: Summary) -> Html:
    powers = summary["groups"]["frequency"]
    names = [name for name in _POWERS if name in powers]
    num = len(powers[names[0]])
    centres = [(i + 0.5) / (2 * num) for i in range(num)]
    roots = {name: [value**0.5 for value in powers[name]] for name in names}
    colours = {"nets_error": "series-a", "samples_error": "series-b", "samples_spread": "reference"}
    lines = [
        Series(_POWERS[name], centres, roots[name], colours[name], "points")
        for name in names
        if name in colours
    ]
    flat = [value for line in lines for value in line.y if value is not None]
    axes = Axis("cycles a pixel", 0.0, 0.5), Axis.over("rms, grey levels", [0.0, *flat])
    alt = "Rms by spatial frequency: " + "; ".join(
        f"{_POWERS[name]} from {number(roots[name][0], 3)} to {number(roots[name][-1], 3)}"
        for name in names
    )
    rows = [
        [number(centre, 3), *(number(roots[name][i]) for name in names)]
        for i, centre in enumerate(centres)
    ]
    head = ["cycles a pixel", *(_POWERS[name] for name in names)]
    data = html.table("Rms by spatial frequency, grey levels", head, [Rows("", rows)])
    note = "Where the samples are there, their spread is what the error of an exact mean would be."
    return figure("Error by spatial frequency", plot(alt, *axes, lines), note, data)


def _by_std(summary: Summary) -> Html:
    found = summary["groups"]["std"]
    groups = [
        Rows(route, [[f"fifth {i + 1}", *_cells(row)] for i, row in enumerate(rows)])
        for route, rows in found.items()
    ]
    return html.table("By fifths of the predicted std", ["", *_SCORES.values()], groups)


def _by_range(summary: Summary) -> Html:
    found = summary["groups"]["range"]
    groups = [
        Rows(route, [[row["label"], *_cells(row)] for row in rows]) for route, rows in found.items()
    ]
    caption = "Near the ends of the range, where values are cut off"
    return html.table(caption, ["", *_SCORES.values()], groups)


def _by_class(summary: Summary) -> Html | None:
    rows = summary["groups"]["class"]
    if not rows:
        return None
    keys = [key for key in _OF_CLASS if key in rows[0]]
    lines = [[row["class"] or "–", *(number(row[key]) for key in keys)] for row in rows]
    return html.table("By class", ["", *(_OF_CLASS[key] for key in keys)], [Rows("", lines)])


def _worst(summary: Summary) -> Html:
    groups = [
        Rows(_WORST[metric], [[row["name"], number(row["value"])] for row in rows])
        for metric, rows in summary["worst"].items()
    ]
    return html.table("The worst images", ["", "value"], groups)


def _cells(row: Mapping[str, Any]) -> list[Html | str | None]:
    return [number(row[key]) for key in _SCORES]
