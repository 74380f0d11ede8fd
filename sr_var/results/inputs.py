"""Whether results are of the image that has their name: told by the low-res image beside them.

A name says nothing of the content: ``--data_dir`` may hold another data set under the same names,
or the same one cut in another way, than when the results were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from utils.images.decode import BadImageError
from utils.images.files import open_image
from utils.process.errors import DataError

Item = TypeVar("Item")
Array = npt.NDArray[np.floating[Any]]
# grey levels on average; rounding makes a quarter, other versions of the JPEG decoder about as much
_LARGEST_DIFFERENCE_255 = 1.5
# so many images are looked at before anything is done: another data set differs everywhere
NUM_LOOKED_AT = 16


def is_known_input(path: str, low_res_255: Array) -> bool:
    """Whether the low-res image beside results is there; then it must be today's.

    Args:
        path: of the 8-bit picture; none there, or a damaged one, says nothing.
        low_res_255: today's, (h, w, 3) grey levels.

    Raises:
        DataError: if it is of another image or crop; names the picture, both sides, the remedy.
    """
    try:
        stored = np.asarray(open_image(path), np.float64)
    except (FileNotFoundError, NotADirectoryError, BadImageError):
        return False
    problem = difference(stored, low_res_255)
    if problem:
        raise DataError(
            f"{path}: this low-res image {problem}, so the results beside it are of another image "
            "or crop; give the --data_dir and the sizes that they were made with, or the folder of "
            "results of this data"
        )
    return True


def difference(stored: Array, today: Array) -> str:
    """How a stored low-res image is not today's, both (h, w, 3) grey levels; empty if it is."""
    if stored.shape != today.shape:
        (height, width, _), (new_height, new_width, _) = stored.shape, today.shape
        return f"is {width}×{height}, the one of --data_dir is {new_width}×{new_height}"
    mean = float(np.abs(stored - today).mean())
    if mean <= _LARGEST_DIFFERENCE_255:
        return ""
    return f"differs from the one of --data_dir by {mean:.1f} grey levels on average"


def spread(items: Sequence[Item]) -> list[Item]:
    """A few of the items, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(len(items), NUM_LOOKED_AT)).astype(int)
    return [items[place] for place in places]
