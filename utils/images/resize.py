"""A square out of a resized image without resizing the rest: nearly what Pillow makes of all of it.

Not for the choice of sizes and places: that is ``utils.images.files``.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

MAX_MARGIN = 8
_BICUBIC_SUPPORT = 2.0
# Where Pillow resizes columns before rows, from twice as high as wide on; rounding in between makes
# the order part of the result.
_TALL = 1.9


def resized_square(
    image: Image.Image, full_size: tuple[int, int], left: int, top: int, size: int
) -> Image.Image:
    """``image.resize(full_size, BICUBIC).crop((left, top, left + size, top + size))``, sooner.

    Pillow takes the edges of a source box as float32, so filter weights differ by some 1e-6 and a
    value on the verge of two grey levels may fall to the other one: 4e-5 of the values of
    photographs, by one level, and, since rows are rounded before columns, by two in 2e-7 of them
    (``benchmarks.loader``). Very tall images are resized as a whole, and bit-equal.

    Args:
        image: RGB.
        full_size: (width, height) that the whole image would be resized to.
        left: of the square in the resized image.
        top: of it.
        size: its side; it lies inside the resized image.
    """
    (width, height), bicubic = full_size, Image.Resampling.BICUBIC
    if image.height > _TALL * image.width:
        return image.resize(full_size, bicubic).crop((left, top, left + size, top + size))
    step_x, step_y = image.width / width, image.height / height
    x0, x1 = _ends(left, size, width, step_x)
    y0, y1 = _ends(top, size, height, step_y)
    reach = math.ceil(_BICUBIC_SUPPORT * max(step_y, 1.0)) + 1
    first = max(0, math.floor(y0 * step_y) - reach)
    last = min(image.height, math.ceil(y1 * step_y) + reach)
    if last - first < image.height:  # cut: of a box of rows, Pillow resizes the unchanged height
        image = image.crop((0, first, image.width, last))
    # in two calls: in one, Pillow would choose the order of the passes by the shape of the box
    across = (x0 * step_x, 0, x1 * step_x, image.height)
    rows = image.resize((x1 - x0, image.height), bicubic, across)
    down = (0, y0 * step_y - first, x1 - x0, y1 * step_y - first)
    part = rows.resize((x1 - x0, y1 - y0), bicubic, down)
    return part.crop((left - x0, top - y0, left - x0 + size, top - y0 + size))


def _ends(start: int, size: int, full: int, step: float) -> tuple[int, int]:
    """Where to begin and end: up to `MAX_MARGIN` beyond, where float32 hits the edge best."""
    before = range(start, max(start - MAX_MARGIN, 0) - 1, -1)
    behind = range(start + size, min(start + size + MAX_MARGIN, full) + 1)

    def error(place: int) -> float:
        return abs(float(np.float32(place * step)) - place * step)

    return min(before, key=error), min(behind, key=error)
