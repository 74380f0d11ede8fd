"""One labelled picture of a few images: what the nets see and say, and how sure they are.

The panels of all images are the business of ``run``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sr_var.results.folder import to_grey_bytes
from sr_var.verify.figures import Array, ImageData
from utils.files.atomic import write_bytes_atomic

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
    """A row an image; the last three columns share one colour scale in grey levels.

    Args:
        path: of the PNG.
        images: at least one.
    """
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(6 * _INCHES + 0.9, len(images) * _INCHES + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(_TITLES), squeeze=False)
    maps = [uncertainty_maps(image) for image in images]
    top = top_of_scale(maps)
    shown: Any = None
    for row, (image, part) in enumerate(zip(images, maps, strict=True)):
        for column, picture in enumerate((image.high_res, image.bilinear, image.mean)):
            axes[row, column].imshow(to_grey_bytes(picture))
        for column, values in enumerate(part, 3):
            shown = axes[row, column].imshow(values, cmap="inferno", vmin=0, vmax=top)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], _TITLES, strict=True):
        axis.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes[:, -1], label="grey levels", shrink=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes_atomic(path, buffer.getvalue())


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
