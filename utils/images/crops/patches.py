"""Patches of images at their own resolution, and which way a crop is made of a file.

By default the short side of an image is first scaled to the crop's (`files.center_crop_arr`), so
that a photograph is seen whole and small. A microscope or satellite image has a scale of its own:
`--crop native` takes its pixels as they are. Both ways go with 8-bit pictures and with images in
their own numbers (`native_crops`). What training adds by chance is here, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.flags.groups import NATIVE, HasReading
from utils.images.crops.measured import FLAG, PAIRS, Kind, MeasuredPair, PairSize
from utils.images.crops.native_crops import NativeCrop
from utils.images.crops.recipes import CenterCrop, CropRecipe
from utils.images.files import Crop, center_crop_arr, cut_out
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike


class _InFolder(HasReading, Protocol):
    @property
    def data_dir(self) -> str: ...
    @property
    def values_range(self) -> tuple[float, float] | None: ...


def center_patch(image: Image.Image, size: SizeLike) -> NDArray[Any]:
    """The `size` pixels around the centre, none of them scaled; (H, W, 3) uint8.

    Of an image in float (mode F) they are float32, (H, W). An image with a shorter side than that
    is enlarged as `center_crop_arr` does: whether it is used at all is for `--small_images` to
    say.
    """
    patch = Size.of(size)
    left, top = (image.width - patch.width) // 2, (image.height - patch.height) // 2
    if min(left, top) < 0:
        return center_crop_arr(image, patch)
    return cut_out(image, (left, top), patch)


def random_patch(image: Image.Image, size: SizeLike, rng: np.random.Generator) -> NDArray[Any]:
    """Likewise at a place that is uniform over all whole ones; a function of image and `rng`.

    The state of `rng` advances by two draws, whatever the size of the image.
    """
    patch = Size.of(size)
    rooms = image.height - patch.height, image.width - patch.width
    top, left = (int(rng.integers(max(room, 0) + 1)) for room in rooms)
    if min(rooms) < 0:
        return center_crop_arr(image, patch)
    return cut_out(image, (left, top), patch)


@dataclass(frozen=True)
class CenterPatch(CenterCrop):
    """How a patch at the centre is made of a file; see `center_patch`."""

    def cut(self, name: str) -> Crop:
        """Cut the patch of an image; raises as `CenterCrop.cut`."""
        return self.cut_by(name, lambda image: center_patch(image, self.size))

    def cut_at_random(self, name: str, rng: np.random.Generator) -> Crop:
        """Cut a patch at a random place (`random_patch`); as `CenterCrop.cut_at_random`."""
        return self._cut_at_random(name, rng, random_patch)


@dataclass(frozen=True)
class NativePatch(NativeCrop):
    """Likewise in the numbers of the file; see `NativeCrop`."""

    def cut(self, name: str) -> Crop:
        """Cut the patch of an image; raises as `NativeCrop.cut_by`."""
        return self.cut_by(name, lambda channel: center_patch(channel, self.size))

    def cut_at_random(self, name: str, rng: np.random.Generator) -> Crop:
        """Cut a patch at a random place (`random_patch`); as `CenterCrop.cut_at_random`."""
        return self._cut_at_random(name, rng, random_patch)


def is_patch(recipe: CenterCrop) -> bool:
    """Whether crops are made by `--crop native`."""
    return isinstance(recipe, (CenterPatch, NativePatch))


def recipe_of(
    data_dir: str,
    size: SizeLike,
    num_channels: int,
    reading: HasReading,
    value_range: tuple[float, float] | None,
) -> CenterCrop:
    """How crops without chance are made of files, in 255ths of a range.

    Without a range of 8-bit grey levels or RGB.
    """
    common = data_dir, size, num_channels, reading.apply_orientation
    is_native = reading.crop == NATIVE
    if value_range is None:
        return CenterPatch(*common) if is_native else CenterCrop(*common)
    return (NativePatch if is_native else NativeCrop)(*common, *value_range)


def crop_recipe(flags: _InFolder, size: SizeLike, num_channels: int = 3) -> CropRecipe:
    """How the flags want a crop of `size` pixels to be made of a file; raises as `recipe_for`."""
    recipe = recipe_of(flags.data_dir, size, num_channels, flags, flags.values_range)
    return recipe_for(flags, size, recipe)


def recipe_for(flags: HasReading, size: SizeLike, true: CenterCrop) -> CropRecipe:
    """The recipe of pairs where flags name their folder, else that of `true` images.

    A network of measured pairs asks for crops of a `PairSize`; without a folder, or with one for
    another network, nothing else is put in the place of what was measured.

    Raises:
        DataError: the flags and the network do not fit; as `partners_in`.
    """
    pairs_dir = getattr(flags, "pairs_dir", "")
    if isinstance(size, PairSize):
        if not pairs_dir:
            raise DataError(
                "the network sees measured images (--degradation measured), which cannot be made "
                f"of the true ones: give {FLAG}, or a script that takes X as it is (sr_predict.py, "
                "ddpm_sr_sample.py --base_samples)"
            )
        measured = _measured(true, pairs_dir, flags, size.kind)
        return MeasuredPair.of(true, measured, size.factor)
    if pairs_dir:
        raise DataError(
            f"{FLAG} {pairs_dir}: the network was not trained on measured pairs; leave it out, or "
            "name a network that was"
        )
    return true


def _measured(
    true: CenterCrop, pairs_dir: str, reading: HasReading, kind: Kind | None
) -> CenterCrop:
    """How measured images are read: as true ones, or as their kind says."""
    if kind is None:
        return replace(true, data_dir=pairs_dir)
    made = recipe_of(pairs_dir, true.size, kind.num_channels, reading, kind.values_range)
    return replace(made, whose=PAIRS)


def random_flip(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """The image or, with probability 1/2, its mirror image (left-right); HWC, a contiguous copy."""
    is_flipped = rng.random() < 0.5
    return np.array(image[:, ::-1] if is_flipped else image, order="C")


def random_turn(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """The image turned by 0, 1, 2 or 3 quarters, each as likely; HWC, a contiguous copy.

    One that is no square is turned by 0 or 2.
    """
    height, width, _ = image.shape
    quarters = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
    return np.array(np.rot90(image, quarters), order="C")
