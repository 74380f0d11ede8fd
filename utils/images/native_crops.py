"""Centre crops of images in their own numbers: any number of channels, no rounding to 8 bits.

A crop is float32 in 255ths of the range of values: `low` is 0 and `high` is 255, so that whatever
works on grey levels works on it. It is scaled as `utils.images.files.center_crop_arr` scales,
channel by channel and in float.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.flags.groups import NATIVE, HasReading
from utils.images.files import (
    NATIVE_ONLY,
    REMEDY,
    BadImageError,
    CenterCrop,
    Crop,
    center_crop_arr,
    naming,
    random_crop_arr,
    read_crop,
    resolve_image_path,
)
from utils.images.native import NativeImage, read_native
from utils.images.patches import CenterPatch, center_patch, random_patch
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
        is_patch: cut at the image's own resolution, as `utils.images.patches` does.
    """

    low: float = 0.0
    high: float = float(WHITE)
    is_patch: bool = False

    def cut(self, name: str) -> Crop:
        """Cut the crop of an image; raises as `read_native`, and for other channels or values."""
        cut = center_patch if self.is_patch else center_crop_arr
        return self.cut_by(name, lambda channel: cut(channel, self.size))

    def cut_by(self, name: str, cut: Callable[[Image.Image], NDArray[Any]]) -> Crop:
        """The same by another cut of a channel, a picture in float (mode F)."""
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


class _InFolder(HasReading, Protocol):
    @property
    def data_dir(self) -> str: ...

    @property
    def values_range(self) -> tuple[float, float] | None: ...


def crop_recipe(flags: _InFolder, size: int, num_channels: int = 3) -> CenterCrop:
    """How the flags want a crop of `size` pixels without chance to be made of a file."""
    return recipe_of(flags, size, num_channels, flags.values_range)


def recipe_of(
    flags: _InFolder, size: int, num_channels: int, value_range: tuple[float, float] | None
) -> CenterCrop:
    """The same of 8-bit grey levels or RGB (no range), or in the files' own numbers."""
    common = flags.data_dir, size, num_channels, flags.apply_orientation
    if value_range is not None:
        return NativeCrop(*common, *value_range, flags.crop == NATIVE)
    return CenterPatch(*common) if flags.crop == NATIVE else CenterCrop(*common)


def is_patch(recipe: CenterCrop) -> bool:
    """Whether its crops have the image's own resolution."""
    return isinstance(recipe, CenterPatch) or (isinstance(recipe, NativeCrop) and recipe.is_patch)


def cut_at_random(recipe: CenterCrop, name: str, rng: np.random.Generator) -> Crop:
    """A crop at a random place as a recipe makes centre crops; of 8-bit images it is RGB.

    Also at a random scale (`random_crop_arr`), unless it is a patch (`random_patch`).
    """
    cut = random_patch if is_patch(recipe) else random_crop_arr
    if isinstance(recipe, NativeCrop):  # each channel at the same place
        return recipe.cut_by(name, lambda channel: cut(channel, recipe.size, copy.deepcopy(rng)))
    return read_crop(
        resolve_image_path(recipe.data_dir, name),
        lambda image: cut(image, recipe.size, rng),
        apply_orientation=recipe.apply_orientation,
    )


def stored_as(recipe: CenterCrop) -> tuple[str, np.dtype[Any], dict[str, float]]:
    """How a cache keeps its crops: name of the file, type, and what else the values depend on."""
    if isinstance(recipe, NativeCrop):
        return "crops.f4", np.dtype(np.float32), {"low": recipe.low, "high": recipe.high}
    return "crops.u8", np.dtype(np.uint8), {}


def is_native_only(name: str) -> bool:
    """Whether a name is that of a file which is read in its own numbers alone."""
    return name.lower().endswith(NATIVE_ONLY)
