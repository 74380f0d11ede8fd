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

from utils.images.files import (
    NATIVE_ONLY,
    REMEDY,
    BadImageError,
    CenterCrop,
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
            values = values_255(image, self.num_channels, self.low, self.high)
            channels = [cut(Image.fromarray(values[..., c])) for c in range(self.num_channels)]
            return Crop(np.stack(channels, axis=2), image.facts)


def values_255(image: NativeImage, num_channels: int, low: float, high: float) -> NDArray[Any]:
    """The image (H, W, C) in 255ths of a range, float32, neither rounded nor clipped.

    One channel becomes three equal ones, three become the luma of ITU-R 601.

    Raises:
        BadImageError: of other channels, or of values that no image of this range has; without the
            name of the file.
    """
    pixels = image.pixels.astype(np.float32)
    if image.num_channels == 3 and num_channels == 1:
        pixels = (pixels @ _LUMA.astype(np.float32))[..., None]
    elif image.num_channels == 1 and num_channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != num_channels:
        raise BadImageError(
            f"it has {image.num_channels} channels, --in_channels is {num_channels}: give images "
            "of as many, or another --in_channels"
        )
    least, most, span = float(pixels.min()), float(pixels.max()), high - low
    is_of_smaller_type = image.type_range is not None and image.type_range[1] < high
    if is_of_smaller_type or least < low - _MOST_OUTSIDE * span or most > high + span:
        raise BadImageError(
            f"its values are {image.pixels.dtype} from {least:g} to {most:g}, --value_range is "
            f"{low:g},{high:g}: give images of one unit, or another --value_range"
        )
    scaled: NDArray[Any] = (pixels - np.float32(low)) * np.float32(WHITE / span)
    return scaled


def stored_as(recipe: CenterCrop) -> tuple[str, np.dtype[Any], dict[str, float]]:
    """How a cache keeps its crops: name of the file, type, and what else the values depend on."""
    if isinstance(recipe, NativeCrop):
        return "crops.f4", np.dtype(np.float32), {"low": recipe.low, "high": recipe.high}
    return "crops.u8", np.dtype(np.uint8), {}


def is_native_only(name: str) -> bool:
    """Whether a name is that of a file which is read in its own numbers alone."""
    return name.lower().endswith(NATIVE_ONLY)
