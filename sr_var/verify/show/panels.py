"""The panels of an image as one picture: a title above each, and the scale of the maps in colours.

Drawn pixel by pixel, with no figure library: there may be thousands of images.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import Picture, coloured
from sr_var.values import as_rgb
from sr_var.verify.read.images import ImageData
from sr_var.verify.show.pictures import (
    BETWEEN,
    ERROR,
    NET,
    SAMPLES,
    mean_panel,
    titles_of,
    top_of_scale,
    uncertainty_maps,
    uncertainty_panel,
)
from utils.files.storage import flat_name, make_folder, tag_name
from utils.images.pictures import write_picture
from utils.logger import RunLogger
from utils.metrics import WHITE

# smaller images are enlarged by a whole factor, each pixel a block, so that titles have room
_LEAST_SIDE = 144
_TITLE, _GAP, _BAR, _FONT_SIZE = 20, 8, 14, 13


def write_panels(name: str, data: ImageData, log_dir: str, logger: RunLogger) -> None:
    """The panels of one image: with titles as a PNG under `panels/`, without in TensorBoard."""
    has_samples = data.samples is not None
    shown = "abs_error | std_samples | std_net" if has_samples else "abs_error | std_net"
    if data.epistemic is not None:
        shown += " | std_between_nets"
    logger.image(f"high_res | low_res | mean/{tag_name(name)}", mean_panel(data), 0)
    logger.image(f"{shown}/{tag_name(name)}", uncertainty_panel(data), 0)
    path = os.path.join(log_dir, "panels", flat_name(name, ".png"))
    make_folder(os.path.dirname(path))
    write_picture(path, titled_panels(data))


def titled_panels(data: ImageData) -> Picture:
    """high-res, low-res and mean above |error|, std of the samples and std of the net.

    Without samples all in one row. Of several mean nets the std between them comes last. The maps
    share one scale from 0, shown beside them with its ends in grey levels. RGB; every picture has
    its own pixels, or blocks of them.
    """
    pictures = [to_grey_bytes(as_rgb(one)) for one in (data.high_res, data.bilinear, data.mean)]
    maps = uncertainty_maps(data)
    top, has_samples = top_of_scale([maps]), data.samples is not None
    titles = [ERROR, SAMPLES, NET] if has_samples else [ERROR, NET]
    shown = [coloured(values, top) for values in maps]
    if data.epistemic is not None:
        titles.append(BETWEEN)
        shown.append(coloured(np.sqrt(data.epistemic).mean(axis=2), top))
    factor = math.ceil(_LEAST_SIDE / min(data.mean.shape[:2]))
    if not has_samples:
        row = _row([*pictures, *shown], [*titles_of(data), *titles], factor)
        return np.concatenate([row, _scale(top, row.shape[0])], axis=1)
    upper, lower = _row(pictures, titles_of(data), factor), _row(shown, titles, factor)
    lower = np.concatenate([lower, _scale(top, lower.shape[0])], axis=1)
    room = ((0, 0), (0, lower.shape[1] - upper.shape[1]), (0, 0))
    return np.concatenate([np.pad(upper, room, constant_values=WHITE), lower], axis=0)


def _row(pictures: Sequence[Picture], titles: Sequence[str], factor: int) -> Picture:
    """Pictures side by side, enlarged, each below its title."""
    block = np.ones((factor, factor, 1), np.uint8)
    tiles = [np.kron(picture, block) for picture in pictures]
    height, width = tiles[0].shape[:2]
    canvas = np.full((_TITLE + height + _GAP, len(tiles) * (width + _GAP), 3), WHITE, np.uint8)
    for place, tile in enumerate(tiles):
        left = place * (width + _GAP)
        canvas[_TITLE : _TITLE + height, left : left + width] = tile
    picture = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    for place, title in enumerate(titles):
        at = (place * (width + _GAP) + width / 2, _TITLE / 2)
        draw.text(at, title, "black", font, anchor="mm")
    return np.asarray(picture)


def _scale(top: float, height: int) -> Picture:
    """The colours of a row of maps from 0 to `top`, as high as the row."""
    font = ImageFont.load_default(_FONT_SIZE)
    inner = height - _TITLE - _GAP
    labels = {0.0: f"{top:.3g} grey levels", 0.5: f"{top / 2:.3g}", 1.0: "0"}
    room = max(math.ceil(font.getlength(label)) for label in labels.values()) + 2 * _GAP
    canvas = np.full((height, _BAR + room, 3), WHITE, np.uint8)
    share = np.linspace(1, 0, inner)[:, None].repeat(_BAR, axis=1)
    canvas[_TITLE : _TITLE + inner, :_BAR] = coloured(share, 1)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    # the labels of the ends stay beside the bar
    for place, anchor in ((0.0, "la"), (0.5, "lm"), (1.0, "ld")):
        at = (_BAR + _GAP / 2, _TITLE + place * inner)
        draw.text(at, labels[place], "black", font, anchor=anchor)
    return np.asarray(picture)
