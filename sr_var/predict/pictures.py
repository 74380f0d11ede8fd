"""The pictures of one image, drawn from its arrays: mean, std with its scale, overview, error.

Arrays are read in strips; an image of more pixels than the toolkit would
open again (`MAX_PIXELS`) is drawn at a half, a third … of its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from sr_var.predict.images import LowRes
from sr_var.predict.results import Target, strips
from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import COLOUR_MAP, Picture, coloured, top_of_scale
from sr_var.values import Units, as_rgb
from utils.files.atomic import atomic_write
from utils.images.files import MAX_PIXELS
from utils.images.pictures import write_picture
from utils.metrics import WHITE

Floats = npt.NDArray[np.float32]
# some rows of an array → what is drawn of them
Rows = Callable[[slice], npt.NDArray[Any]]

PICTURES = ("mean.png", "std.png", "overview.png")
# sides of a panel of the overview, pixels; of the scale beside a map
_PANEL, _BAR_MIN, _BAR_MAX = 560, 180, 8192
_BAR_INCHES = (0.85, 3.2)
_BAR_MARGIN = 0.04
_PLAIN = (1e-3, 1e5)
_DPI = 110
_PER_ROW = 3


@dataclass(frozen=True)
class Panel:
    """One picture of the overview: RGB in uint8, or a map of floats.

    The map's scale ends at `top`; 0: where it suits the map.
    """

    title: str
    pixels: npt.NDArray[Any]
    top: float = 0.0


def draw_mean(target: Target, units: Units) -> None:
    """`_mean.png`: the mean in 8 bits of the range, rounded and clipped."""
    mean = target.array("mean")
    picture = _reduced(mean.shape, lambda rows: _in_8_bits(mean[rows], units))
    write_picture(target.path("mean.png"), picture)


def draw_std(target: Target, units: Units) -> None:
    """`_std.png`: the std, averaged over the channels, with its scale at its right."""
    values = _reduced(target.array("std").shape, std_rows(target), np.float32)
    _draw_map(target.path("std.png"), values, top_of_scale(values), units.name)


def draw_error(target: Target, error: Rows, units: Units) -> None:
    """`_error.png`: rows (r, W) of |mean − truth|, on the scale of the std."""
    shape = target.array("std").shape
    top = top_of_scale(_reduced(shape, std_rows(target), np.float32))
    values = _reduced(shape, error, np.float32)
    _draw_map(target.path("error.png"), values, top, units.name)


def _in_8_bits(image: npt.NDArray[Any], units: Units) -> Picture:
    """An image (H, W, C) in its unit as a picture (H, W, 3)."""
    return as_rgb(to_grey_bytes(units.to_255(image)))


def std_rows(target: Target) -> Rows:
    """What gives rows (r, W) of the std, averaged over the channels."""
    std = target.array("std")
    return lambda rows: std[rows].mean(axis=2)


def _draw_map(path: str, values: Floats, top: float, unit: str) -> None:
    """A map (H, W) in colours, with its scale at its right."""
    picture = np.empty((*values.shape, 3), np.uint8)
    for rows in strips(len(values)):
        picture[rows] = coloured(values[rows], top)
    write_picture(path, _with_scale(picture, top, unit))


def draw_overview(
    target: Target,
    inputs: Sequence[LowRes],
    interval: str,
    error: Rows | None,
    units: Units,
) -> None:
    """`_overview.png`: input, mean, std and width of the interval; the error, where it is known.

    Args:
        inputs: what the networks see side by side, in their own units.
        interval: which one, as `90 %`.
        error: rows (r, W) of |mean − truth|.
        units: of the results.
    """
    mean = target.array("mean")
    lower, upper = target.array("lower"), target.array("upper")
    std = _small(mean.shape, std_rows(target))
    panels = [
        *map(_input_panel, inputs),
        Panel(
            f"mean, {_size(mean.shape)}",
            _in_8_bits(_small(mean.shape, lambda rows: mean[rows]), units),
        ),
        Panel("std", std),
        Panel(
            f"width of the {interval} interval",
            _small(mean.shape, lambda rows: (upper[rows] - lower[rows]).mean(axis=2)),
        ),
    ]
    if error is not None:
        shown = _small(mean.shape, error)
        panels.append(Panel("|mean − truth|, on the scale of the std", shown, top_of_scale(std)))
    _draw_panels(target.path("overview.png"), panels, units.name)


def _input_panel(low_res: LowRes) -> Panel:
    pixels, units = low_res.pixels, Units(low_res.low, low_res.high)
    small = _small(pixels.shape, lambda rows: pixels[rows].astype(np.float32))
    return Panel(f"input, {_size(pixels.shape)}", _in_8_bits(small, units))


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def _draw_panels(path: str, panels: Sequence[Panel], unit: str) -> None:
    height, width = panels[1].pixels.shape[:2]
    num_columns = 2 if len(panels) <= 4 else _PER_ROW
    num_rows = math.ceil(len(panels) / num_columns)
    shape = min(max(height / width, 0.25), 4.0)
    inches = _PANEL / _DPI if shape <= 1 else _PANEL / _DPI / shape
    size = (num_columns * (inches + 0.7), num_rows * (inches * shape + 0.45))
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    for place, panel in enumerate(panels, 1):
        axis = figure.add_subplot(num_rows, num_columns, place)
        axis.set_title(panel.title, fontsize=9)
        axis.set_axis_off()
        if panel.pixels.ndim == 3:
            axis.imshow(panel.pixels, interpolation="nearest")
            continue
        top = panel.top or top_of_scale(panel.pixels)
        shown = axis.imshow(panel.pixels, cmap=COLOUR_MAP, vmin=0, vmax=top)
        bar = figure.colorbar(shown, ax=axis, shrink=0.9)
        bar.set_label(unit, fontsize=8)
        bar.ax.tick_params(labelsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _with_scale(picture: Picture, top: float, unit: str) -> Picture:
    """The map with a bar at its right, as high as itself within bounds."""
    height, width, _ = picture.shape
    bar = _scale(top, min(max(height, _BAR_MIN), _BAR_MAX), unit)
    shape = (max(height, len(bar)), width + bar.shape[1], 3)
    page = np.full(shape, WHITE, np.uint8)
    page[:height, :width] = picture
    page[: len(bar), width:] = bar
    return page


def _scale(top: float, height: int, unit: str) -> Picture:
    """The bar of the colours from 0 to `top` with its numbers; they grow with its height."""
    least, inches = _BAR_INCHES
    width = least
    for _ in range(2):
        figure = Figure(figsize=(width, inches), dpi=height / inches)
        canvas = FigureCanvasAgg(figure)
        axis = figure.add_axes((0.08 * least / width, 0.04, 0.2 * least / width, 0.92))
        shown = ScalarMappable(Normalize(0, top), COLOUR_MAP)
        bar = figure.colorbar(shown, cax=axis, format=_format_of(top))
        bar.set_label(unit, fontsize=9)
        bar.ax.tick_params(labelsize=8)
        canvas.draw()  # type: ignore[no-untyped-call]
        # numbers of many digits move the words to the right
        box = bar.ax.get_tightbbox()
        right = 0.0 if box is None else box.x1 / figure.dpi
        if right <= width:
            break
        width = right + _BAR_MARGIN
    drawn: Picture = np.asarray(canvas.buffer_rgba())[:height, :, :3]  # type: ignore[no-untyped-call]
    return drawn


def _format_of(top: float) -> str | None:
    """How numbers of a scale are written: with powers of ten of their own, none stands apart."""
    return None if _PLAIN[0] <= top < _PLAIN[1] else "%g"


def _reduced(
    shape: Sequence[int], values: Rows, dtype: npt.DTypeLike = np.uint8, step: int = 0
) -> npt.NDArray[Any]:
    """All rows of what `values` draws, every `step`-th pixel; 0: so few as may be in a file."""
    step = step or max(1, math.ceil(math.sqrt(shape[0] * shape[1] / MAX_PIXELS)))
    parts = []
    for rows in strips(shape[0]):
        first = -rows.start % step
        parts.append(np.asarray(values(rows)[first::step, ::step], dtype))
    return np.concatenate(parts)


def _small(shape: Sequence[int], values: Rows) -> npt.NDArray[Any]:
    """What `values` draws, at the size of a panel: means of blocks of pixels."""
    step = max(1, math.ceil(max(shape[:2]) / (2 * _PANEL)))
    height, width = shape[0] // step, shape[1] // step
    if step == 1 or not (height and width):
        return _reduced(shape, values, np.float32, step)
    parts = []
    for top in range(0, height * step, 64 * step):
        rows = slice(top, min(top + 64 * step, height * step))
        part = np.asarray(values(rows), np.float32)[:, : width * step]
        blocks = part.reshape(len(part) // step, step, width, step, *part.shape[2:])
        parts.append(blocks.mean(axis=(1, 3)))
    return np.concatenate(parts)
