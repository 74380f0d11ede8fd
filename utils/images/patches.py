"""Square patches of images at their own resolution, and which way a crop is made of a file.

By default the short side of an image is first scaled to the crop's (`files.center_crop_arr`), so
that a photograph is seen whole and small. A microscope or satellite image has a scale of its own:
`--crop native` takes its pixels as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.images.files import (
    CenterCrop,
    Crop,
    center_crop_arr,
    in_channels,
    read_crop,
    resolve_image_path,
)


def center_patch(image: Image.Image, size: int) -> NDArray[Any]:
    """The size × size pixels around the centre, (size, size, 3) uint8, none of them scaled;
    of an image in float (mode F) float32, (size, size).

    An image with a shorter side than that is enlarged as `center_crop_arr` does: whether it is used
    at all is for `--small_images` to say.
    """
    width, height = image.size
    if min(width, height) < size:
        return center_crop_arr(image, size)
    return _cut(image, ((width - size) // 2, (height - size) // 2), size)


def random_patch(image: Image.Image, size: int, rng: np.random.Generator) -> NDArray[Any]:
    """Likewise at a place that is uniform over all whole ones; a function of image and `rng`.

    The state of `rng` advances by two draws, whatever the size of the image.
    """
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in (image.height, image.width))
    if min(image.size) < size:
        return center_crop_arr(image, size)
    return _cut(image, (left, top), size)


def _cut(image: Image.Image, corner: tuple[int, int], size: int) -> NDArray[Any]:
    left, top = corner
    return np.array(image.crop((left, top, left + size, top + size)))


@dataclass(frozen=True)
class CenterPatch(CenterCrop):
    """How a patch at the centre is made of a file; see `center_patch`."""

    def cut(self, name: str) -> Crop:
        """Cut the patch of an image; raises as `read_crop`."""
        pixels, facts = read_crop(
            resolve_image_path(self.data_dir, name),
            lambda image: center_patch(image, self.size),
            apply_orientation=self.apply_orientation,
        )
        return Crop(in_channels(pixels, self.num_channels), facts)
