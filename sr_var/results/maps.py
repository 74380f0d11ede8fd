"""Maps of what has a size and no colour, a std or an error, in the colours of all pictures here."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.metrics import WHITE

Picture = npt.NDArray[np.uint8]

COLOUR_MAP = "inferno"
# where a scale ends: a few pixels at edges would darken all others
_TOP_QUANTILE = 0.995
# values that are looked at for it
_NUM_LOOKED_AT = 1 << 20


def top_of_scale(values: npt.NDArray[np.floating[Any]]) -> float:
    """Where the colour scale of a map ends: the 99.5 % quantile of its values, above 0.

    Of a map of more than a million values every second, third … row and column counts.
    """
    step = max(1, int(np.ceil(np.sqrt(values.size / _NUM_LOOKED_AT))))
    looked_at = values[..., ::step, ::step] if values.ndim > 1 else values[::step]
    return max(float(np.quantile(looked_at, _TOP_QUANTILE)), 1e-6)


def coloured(values: npt.NDArray[np.floating[Any]], top: float) -> Picture:
    """The map (H, W), of values ≥ 0, as RGB (H, W, 3); what is beyond `top` has its colour."""
    places = np.clip(values * np.float32(len(colours()) / top), 0, len(colours()) - 1)
    picture: Picture = colours()[places.astype(np.uint8)]
    return picture


@functools.cache
def colours() -> Picture:
    """The 256 colours of the scale, from its beginning to its end: (256, 3)."""
    import matplotlib  # a training imports this module, and draws nothing

    found = matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3]
    rounded: Picture = np.rint(WHITE * found).astype(np.uint8)
    return rounded
