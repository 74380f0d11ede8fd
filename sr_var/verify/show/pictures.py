"""The picture files: panels of each image, an overview of a few, bars of the error budget."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import COLOUR_MAP, Picture, coloured
from sr_var.results.moments import Array
from sr_var.verify.read.images import ImageData
from sr_var.verify.read.records import BudgetRow, ErrorInBudget
from utils.files.atomic import atomic_write
from utils.files.storage import flat_name, make_folder, tag_name
from utils.images.files import write_png
from utils.logger import RunLogger

_TITLES = (
    "high-res",
    "low-res",
    "mean of the net",
    "|error| of the mean",
    "std of the samples",
    "std of the net",
)
_INCHES = 1.6


def write_overview(path: str, images: Sequence[ImageData]) -> None:
    """A row an image, at least one; the last three columns share one scale in grey levels."""
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(6 * _INCHES + 0.9, len(images) * _INCHES + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(_TITLES), squeeze=False)
    maps = [uncertainty_maps(image) for image in images]
    top = top_of_scale(maps)
    shown: AxesImage | None = None
    for row, (image, part) in enumerate(zip(images, maps, strict=True)):
        for column, picture in enumerate((image.high_res, image.bilinear, image.mean)):
            axes[row, column].imshow(to_grey_bytes(picture))
        for column, values in enumerate(part, 3):
            shown = axes[row, column].imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=top)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], _TITLES, strict=True):
        axis.set_title(title, fontsize=9)
    assert shown is not None
    figure.colorbar(shown, ax=axes[:, -1], label="grey levels", shrink=0.9)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def top_of_scale(maps: Sequence[Array]) -> float:
    """Where the common colour scale of some maps ends: the 99.5 % quantile of their stds."""
    return max(float(np.quantile(np.stack([part[1:] for part in maps]), 0.995)), 1e-6)


def uncertainty_maps(image: ImageData) -> Array:
    """(3, H, H): |error|, std of the samples, std of the net, averaged over the channels."""
    return np.stack(
        [
            np.abs(image.high_res - image.mean).mean(axis=2),
            np.sqrt(np.maximum(image.samples.variance, 0)).mean(axis=2),
            np.sqrt(np.maximum(image.variance, 0)).mean(axis=2),
        ]
    )


def mean_panel(data: ImageData) -> Picture:
    """high-res | bilinear low-res | mean of the net, side by side."""
    return to_grey_bytes(np.concatenate([data.high_res, data.bilinear, data.mean], axis=1))


def uncertainty_panel(data: ImageData) -> Picture:
    """|high-res − mean| | std of the samples | std of the net, on one colour scale from 0."""
    maps = uncertainty_maps(data)
    return coloured(np.concatenate(maps, axis=1), top_of_scale([maps]))


def write_panels(name: str, data: ImageData, log_dir: str, logger: RunLogger) -> None:
    """Both panels of one image, as a PNG under `panels/` and in TensorBoard."""
    upper, lower = mean_panel(data), uncertainty_panel(data)
    logger.image(f"high_res | low_res | mean/{tag_name(name)}", upper, 0)
    logger.image(f"abs_error | std_samples | std_net/{tag_name(name)}", lower, 0)
    path = os.path.join(log_dir, "panels", flat_name(name, ".png"))
    make_folder(os.path.dirname(path))
    write_png(path, np.concatenate([upper, lower], axis=0))


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
            labels = [
                "" if row[key] is None else f"{value:.2g}"
                for row, value in zip(rows, values, strict=True)
            ]
            ax.bar_label(ax.barh(names, values, color="#3b6fb6"), labels, padding=3)
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xlim(0, 4 * max(*values, 0.1))
            ax.set_title(title, fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=120)
