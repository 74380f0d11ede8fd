"""Pictures of the task for files: mean probabilities by class, and the curves of a sweep."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from utils.files.atomic import write_bytes_atomic
from utils.report.html import Axis, Series

_COLUMNS = 5
_COLOURS = MappingProxyType(
    {"series-a": "tab:blue", "series-b": "tab:red", "series-c": "tab:green"}
)
_STYLES = MappingProxyType({"line": "-", "points": "o-", "dots": ".", "crosses": "x"})


def draw_class_probabilities(path: str, content: Mapping[str, Any]) -> None:
    """For the images of each right class: the mean softmax as bars, the mean law as marks.

    Args:
        path: of the PNG.
        content: ``analysis.class_means``.
    """
    kinds = content["classes"]
    num_rows = -(-len(kinds) // _COLUMNS)
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.3 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, _COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for place, ax in enumerate(axes):
        if place >= len(kinds):
            ax.axis("off")
            continue
        softmax, law = content["softmax"][place], content["law"][place]
        ax.bar(range(len(softmax)), softmax, color="tab:blue", label="mean softmax of the net")
        ax.plot(
            range(len(law)),
            law,
            "o",
            color="black",
            mfc="none",
            ms=5,
            label="mean law of the labels",
        )
        ax.set_title(f"images of class {kinds[place]}", fontsize=9)
        ax.set_xticks(range(0, len(law), -(-len(law) // 10)))
        ax.tick_params(labelsize=7)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    figure.supxlabel("class", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    _save(figure, path)


def draw_series(path: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series]) -> None:
    """What ``svg_plot.plot`` puts on a page, as a PNG."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    for one in series:
        is_expected, colour = one.colour.startswith("reference"), _COLOURS[one.colour.split()[-1]]
        style = ":" if is_expected else _STYLES[one.kind]
        # what is missing becomes nan, which is not drawn
        x, y = np.array(one.x, np.float64), np.array(one.y, np.float64)
        ax.plot(x, y, style, color=colour, ms=4, label=one.label)
        for at, interval in zip(x, one.intervals, strict=False):
            if interval is not None:
                ax.plot([at, at], interval, color=colour, lw=1)
    for set_range, axis in ((ax.set_xlim, x_axis), (ax.set_ylim, y_axis)):
        margin = 0.03 * (axis.high - axis.low)
        set_range(axis.low - margin, axis.high + margin)
    ax.set(xlabel=x_axis.label, ylabel=y_axis.label)
    ax.legend(fontsize=7)
    ax.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Figure, path: str) -> None:
    """Writes a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes_atomic(path, buffer.getvalue())
