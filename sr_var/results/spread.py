"""The files of a predicted variance: the documented pickle, and its std as an array and a picture.

Where it is asked for, the variance is an array, too, for programs that read no pickles.

The picture is for people: the std averaged over the channels, in colours, with its scale beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from sr_var.results.folder import ResultFolder, save_array
from sr_var.results.maps import Picture, coloured, top_of_scale
from utils.images.pictures import write_picture
from utils.images.pixels import require_finite, to_hwc
from utils.metrics import HALF_RANGE_255, WHITE
from utils.untrusted.pickles import dump_pickle

# smaller maps are shown with each pixel as a block, so that the scale beside them can be read
_LEAST_SIDE = 96
_GAP, _BAR_WIDTH, _LABEL_WIDTH, _FONT_SIZE = 8, 12, 48, 12


def spread_files(step: int, of: str = "high_res", *, has_array: bool = False) -> tuple[str, ...]:
    """The files of a variance, in writing order; the last one is that of the contract."""
    arrays = (f"{of}_var_{step}.npy",) if has_array else ()
    return f"{of}_std_{step}.png", f"{of}_std_{step}.npy", *arrays, f"{of}_var_{step}.pkl"


def save_spread(
    results: ResultFolder, name: str, file_names: Sequence[str], variance: torch.Tensor
) -> None:
    """Write the variance (C, H, W), in units of [-1, 1] squared, of one image.

    As a pickle of float32, HWC, not clipped, in the square of the images' unit (grey levels of 8
    bits), and so as an array where the names have one (`spread_files`); and its std, √max(v, 0), as
    HWC float32 in the images' unit and as a picture (`std_picture`).

    Raises:
        CheckpointError: it is not finite; nothing is written.
    """
    png_path, npy_path, *arrays, pkl_path = (results.path(name, one) for one in file_names)
    require_finite(variance, pkl_path)
    variance_255 = to_hwc(variance.float() * HALF_RANGE_255**2).astype(np.float32)
    std, units = np.sqrt(np.maximum(variance_255, 0)), results.units
    std = units.spread_from_255(std, 1)
    write_picture(png_path, std_picture(std))
    save_array(npy_path, std)
    found = units.spread_from_255(variance_255, 2)
    for path in arrays:
        save_array(path, found)
    dump_pickle(found, pkl_path)


def std_picture(std_255: npt.NDArray[np.floating[Any]]) -> Picture:
    """A std map (H, W, C) in any unit as an RGB picture, with its scale to the right.

    Shown is the mean over the channels, from 0 to the 99.5 % quantile of the map. The map stands in
    the upper left corner, pixel by pixel; one with a side below 96 pixels is enlarged by the
    smallest whole factor that gives it as many, each pixel a block.
    """
    values = std_255.mean(axis=2)
    top = top_of_scale(values)
    factor = -(-_LEAST_SIDE // min(values.shape))
    shown = np.kron(coloured(values, top), np.ones((factor, factor, 1), np.uint8))
    height, width = shown.shape[:2]
    left = width + _GAP
    font = ImageFont.load_default(_FONT_SIZE)
    labels = [_label(top), _label(top / 2), "0"]
    # in the unit of the images a number may be long
    room = max(_LABEL_WIDTH, *(math.ceil(font.getlength(label)) + _GAP for label in labels))
    canvas = np.full((height, left + _BAR_WIDTH + room, 3), WHITE, np.uint8)
    canvas[:, :width] = shown
    scale = np.linspace(1, 0, height)[:, None].repeat(_BAR_WIDTH, axis=1)
    canvas[:, left : left + _BAR_WIDTH] = coloured(scale, 1)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    place = left + _BAR_WIDTH + _GAP / 2
    # the labels of the ends stay inside the picture
    draw.text((place, 0), labels[0], "black", font, anchor="la")
    draw.text((place, height / 2), labels[1], "black", font, anchor="lm")
    draw.text((place, height), labels[2], "black", font, anchor="ld")
    return np.asarray(picture)


def _label(value: float) -> str:
    return f"{value:.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"
