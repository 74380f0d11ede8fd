"""Centre crops of images in their own numbers: any number of channels, no rounding to 8 bits.

A crop is float32 in 255ths of the range of values: `low` is 0 and `high` is 255, so that whatever
works on grey levels works on it. It is scaled as `utils.images.files.center_crop_arr` scales,
channel by channel and in float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.images.crops.recipes import CenterCrop
from utils.images.files import (
    NATIVE_ONLY,
    REMEDY,
    BadImageError,
    Crop,
    naming,
    resolve_image_path,
)
from utils.images.native import NativeImage, read_native
from utils.metrics import WHITE

_LUMA = np.array([299, 587, 114]) / 1000  # ITU-R 601, as Pillow makes grey levels of colours
# values so many ranges outside of a range are of another unit
_MOST_OUTSIDE = 1.0


@dataclass(frozen=True)
class NativeCrop(CenterCrop):
    """How a centre crop is made of a file, float32 in 255ths of a range.

    Attributes:
        low: the value that becomes 0, in units of the files.
        high: the value that becomes 255.
    """

    low: float = 0.0
    high: float = float(WHITE)

    def cut_by(self, name: str, cut: Callable[[Image.Image], NDArray[Any]]) -> Crop:
        """The crop by a cut of each channel, a picture in float (mode F).

        Raises as `read_native`, and for other channels or values.
        """
        path = resolve_image_path(self.data_dir, name)
        image = read_native(
            path, apply_orientation=self.apply_orientation, num_channels=self.num_channels
        )
        with naming(path, REMEDY):
            values = values_255(image, self.num_channels, self.low, self.high, self.whose)
            channels = [cut(Image.fromarray(values[..., c])) for c in range(self.num_channels)]
            return Crop(np.stack(channels, axis=2), image.facts)


def values_255(
    image: NativeImage, num_channels: int, low: float, high: float, whose: str = ""
) -> NDArray[Any]:
    """The image (H, W, C) in 255ths of a range, float32, neither rounded nor clipped.

    One channel becomes three equal ones, three become the luma of ITU-R 601.

    Raises:
        BadImageError: of other channels, or of values that no image of this range has; without the
            name of the file.
    """
    pixels = in_wanted_channels(image.pixels, num_channels, whose)
    require_range(pixels, image.type_range, low, high, whose)
    return scaled_255(pixels, low, high)


def scaled_255(pixels: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Values in 255ths of a range, float32, neither rounded nor clipped."""
    scaled: NDArray[Any] = pixels.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(WHITE / (high - low))
    return scaled


def in_wanted_channels(pixels: NDArray[Any], num_channels: int, whose: str = "") -> NDArray[Any]:
    """An image (H, W, C) with as many channels as wanted.

    One channel becomes three equal ones (a view), three become the luma of ITU-R 601, in float32.
    `whose`: what the name of the flag begins with that says how many are wanted.

    Raises:
        BadImageError: of other channels; without the name of the file.
    """
    found = pixels.shape[2]
    if found == 3 and num_channels == 1:
        luma: NDArray[Any] = (pixels.astype(np.float32) @ _LUMA.astype(np.float32))[..., None]
        return luma
    if found == 1 and num_channels == 3:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if found != num_channels:
        raise BadImageError(
            f"it has {found} channels, --{whose}in_channels is {num_channels}: give images of as "
            f"many, or train with another --{whose}in_channels"
        )
    return pixels


def require_range(
    pixels: NDArray[Any],
    type_range: tuple[float, float] | None,
    low: float,
    high: float,
    whose: str = "",
) -> None:
    """Refuse values that no image of a range has.

    Args:
        pixels: of any shape, finite.
        type_range: of the integers in the file (`NativeImage.type_range`).
        low: the lowest value of the range; `high`: its highest.
        whose: what the name of the flag begins with that says so.

    Raises:
        BadImageError: of a smaller type, or more than a whole range outside; without the name of
            the file.
    """
    least, most, span = float(pixels.min()), float(pixels.max()), high - low
    is_of_smaller_type = type_range is not None and type_range[1] < high
    beyond = _MOST_OUTSIDE * span
    if is_of_smaller_type or least < low - beyond or most > high + beyond:
        raise BadImageError(
            f"its values are {pixels.dtype} from {least:g} to {most:g}, --{whose}value_range is "
            f"{low:g},{high:g}: give images of one unit, or train with another "
            f"--{whose}value_range"
        )


def stored_as(recipe: CenterCrop) -> tuple[str, np.dtype[Any], dict[str, float]]:
    """How a cache keeps its crops: name of the file, type, and what else the values depend on."""
    if isinstance(recipe, NativeCrop):
        return "crops.f4", np.dtype(np.float32), {"low": recipe.low, "high": recipe.high}
    return "crops.u8", np.dtype(np.uint8), {}


def is_native_only(name: str) -> bool:
    """Whether a name is that of a file which is read in its own numbers alone."""
    return name.lower().endswith(NATIVE_ONLY)
