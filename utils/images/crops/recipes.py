"""Which way crops are made of files: what a data set asks of a recipe, and that of photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.images.files import (
    Crop,
    center_crop_arr,
    in_channels,
    random_crop_arr,
    read_crop,
    resolve_image_path,
)
from utils.sizes import Size, SizeLike

_AtRandom: TypeAlias = Callable[[Image.Image, SizeLike, np.random.Generator], NDArray[Any]]


class CropRecipe(Protocol):
    """How crops are made of the files of an image; `shape` is (H, W, C)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a crop."""

    def cut(self, name: str) -> Crop:
        """The crop without chance; raises as `read_crop`."""

    def cut_at_random(self, name: str, rng: np.random.Generator) -> Crop:
        """A crop for training, a function of the files and `rng`; raises as `cut`."""


@dataclass(frozen=True)
class CenterCrop:
    """How a centre crop is made of a file.

    Attributes:
        data_dir: folder of the images.
        size: of the crop, pixels: a side, or (height, width).
        num_channels: 3, or 1 for grey levels (ITU-R 601 luma).
        apply_orientation: see `decode_image`.
        whose: what the names of flags begin with that say how these images are read.
    """

    data_dir: str
    size: SizeLike
    num_channels: int = 3
    apply_orientation: bool = False
    whose: str = field(default="", kw_only=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return *Size.of(self.size), self.num_channels

    def cut(self, name: str) -> Crop:
        """Cut the crop of an image; raises as `read_crop`."""
        return self.cut_by(name, lambda image: center_crop_arr(image, self.size))

    def cut_by(self, name: str, cut: Callable[[Image.Image], NDArray[Any]]) -> Crop:
        """The same by another cut of the RGB image."""
        path, is_turned = resolve_image_path(self.data_dir, name), self.apply_orientation
        pixels, facts = read_crop(path, cut, apply_orientation=is_turned)
        return Crop(in_channels(pixels, self.num_channels), facts)

    def cut_at_random(self, name: str, rng: np.random.Generator) -> Crop:
        """A crop at a random place and scale (`random_crop_arr`); raises as `cut`.

        The state of `rng` advances as for one channel, however many there are.
        """
        return self._cut_at_random(name, rng, random_crop_arr)

    def _cut_at_random(self, name: str, rng: np.random.Generator, at_random: _AtRandom) -> Crop:
        state = rng.bit_generator.state

        def cut(image: Image.Image) -> NDArray[Any]:
            rng.bit_generator.state = state  # each channel at the same place
            return at_random(image, self.size, rng)

        return self.cut_by(name, cut)


class CropSource:
    """The centre crops of a list of images, cut from their files at every call."""

    def __init__(self, names: Sequence[str], recipe: CropRecipe) -> None:
        self._names, self._recipe = names, recipe

    def read(self, index: int) -> Crop:
        """Return the crop of the image at this place, to keep; raises as `read_crop`."""
        return self._recipe.cut(self._names[index])
