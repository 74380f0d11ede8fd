"""The picture files: panels of each image, an overview of a few, bars of the error budget."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import COLOUR_MAP, Picture, coloured
from sr_var.results.moments import Array
from sr_var.values import as_rgb
from sr_var.verify.numbers.floors import std_of_samples
from sr_var.verify.read.images import ImageData
from sr_var.verify.read.records import BudgetRow, ErrorInBudget
from utils.files.atomic import atomic_write
from utils.metrics import percent_in_table

PICTURES = ("high-res", "low-res", "mean of the net")
INPUT = "input"
ERROR, SAMPLES, NET = "|error| of the mean", "std of the samples", "std of the net"
BETWEEN = "std between nets"
_INCHES = 1.6


def titles_of(data: ImageData) -> tuple[str, ...]:
    """What the three pictures of an image are called: X is no low-res image of all degradations."""
    high_res, low_res, mean = PICTURES
    return high_res, low_res if data.degraded is None else INPUT, mean


def write_overview(path: str, images: Sequence[ImageData]) -> None:
    """A row an image, at least one; the maps behind the pictures share one scale in grey levels."""
    # without samples, no std of theirs
    has_samples = images[0].samples is not None
    titles = [*titles_of(images[0]), ERROR, *([SAMPLES] if has_samples else []), NET]
    # a figure of its own, not pyplot's: no global state, no display
    inches = (len(titles) * _INCHES + 0.9, len(images) * _INCHES + 0.3)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    maps = [uncertainty_maps(image) for image in images]
    top = top_of_scale(maps)
    shown: AxesImage | None = None
    for row, (image, part) in enumerate(zip(images, maps, strict=True)):
        for column, picture in enumerate((image.high_res, image.bilinear, image.mean)):
            axes[row, column].imshow(to_grey_bytes(as_rgb(picture)))
        for column, values in enumerate(part, len(PICTURES)):
            shown = axes[row, column].imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=top)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    assert shown is not None
    figure.colorbar(shown, ax=axes[:, -1], label="grey levels", shrink=0.9)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def top_of_scale(maps: Sequence[Array]) -> float:
    """Where the common colour scale of some maps ends: the 99.5 % quantile of their stds."""
    return max(float(np.quantile(np.stack([part[1:] for part in maps]), 0.995)), 1e-6)


def uncertainty_maps(image: ImageData) -> Array:
    """|error|, std of the samples, std of the net, averaged over the channels.

    (3, H, W); without samples (2, H, W), of the nets alone.
    """
    of_samples = [] if image.samples is None else [std_of_samples(image.samples)]
    of_net = np.sqrt(np.maximum(image.variance, 0))
    maps = (np.abs(image.high_res - image.mean), *of_samples, of_net)
    return np.stack([values.mean(axis=2) for values in maps])


def mean_panel(data: ImageData) -> Picture:
    """high-res | bilinear low-res | mean of the net, side by side."""
    row = np.concatenate([data.high_res, data.shown, data.mean], axis=1)
    return to_grey_bytes(as_rgb(row))


def uncertainty_panel(data: ImageData) -> Picture:
    """|high-res − mean| | std of the samples, if any | std of the net; one colour scale from 0.

    Of several mean nets the std between them comes last.
    """
    maps = uncertainty_maps(data)
    shown = [*maps]
    if data.epistemic is not None:
        shown.append(np.sqrt(data.epistemic).mean(axis=2))
    return coloured(np.concatenate(shown, axis=1), top_of_scale([maps]))


def draw_budget(path: str, rows: Sequence[BudgetRow]) -> None:
    """Two bar charts on logarithmic scales: errors of the mean and of the variance."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 0.5 * len(rows) + 1.6), layout="constrained")
        parts: tuple[tuple[ErrorInBudget, str], ...] = (
            ("relative_mse", "squared error of the mean / mean variance, %"),
            ("relative_var_error", "rms error of the variance, relative, %"),
        )
        axes = figure.subplots(1, 2, sharey=True)
        names = [row["row"] for row in rows]
        for ax, (key, title) in zip(axes, parts, strict=True):
            values = [100 * max(row[key] or 0.0, 0.0) for row in rows]
            ax.barh(names, values, height=0.6, color="#7aa5dc")
            ends = [_draw_interval(ax, place, row, key) for place, row in enumerate(rows)]
            for place, (value, end, row) in enumerate(zip(values, ends, rows, strict=True)):
                label = "" if (error := row[key]) is None else percent_in_table(error)
                at = (max(value, end), place)
                ax.annotate(label, at, (4, 0), textcoords="offset points", va="center")
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xlim(0, 4 * max(*values, *ends, 0.1))
            ax.set_title(title, fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=120)


def _draw_interval(ax: Axes, place: int, row: BudgetRow, key: ErrorInBudget) -> float:
    """A line from end to end, in per cent; where it ends, 0 where there is none."""
    low, high = (row.get("intervals") or {}).get(key) or (0.0, 0.0)
    low, high = 100 * max(low, 0.0), 100 * max(high, 0.0)
    if high > low:
        ax.hlines(place, low, high, color="#1d2128", linewidth=1.5)
    return high
