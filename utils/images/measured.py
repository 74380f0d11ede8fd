"""Measured pairs: a true image, and a measured one of the same name that is cut at the same place.

The measured image has the size of the true one, or that over a whole factor. Both are read in the
same way (8 bits, or a range of values) and cut at their own resolution. A crop holds both: the
channels of the true image, then those of the measured one, whose pixels are repeated to blocks.
So whatever mirrors or turns a crop does the same to both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import is_remote
from utils.images.files import (
    ALL_EXTENSIONS,
    CenterCrop,
    Crop,
    cut_out,
    resolve_image_path,
    with_extension,
)
from utils.images.folder import list_files
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike

FLAG = "--pairs_dir"
_MAX_SHOWN = 5


class PairSize(Size):
    """The size of a crop that is one of a pair.

    Attributes:
        factor: how many times smaller the measured image is along a side.
    """

    factor: int = 1

    @classmethod
    def over(cls, large: SizeLike, factor: int) -> PairSize:
        """That size, of pairs of this factor."""
        made = cls(*Size.of(large))
        made.factor = factor
        return made


def stem(name: str) -> str:
    """The name without its ending, which may have been left off."""
    return os.path.splitext(with_extension(name))[0]


def partners_in(pairs_dir: str, log: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Names of the measured images by their `stem`.

    Raises:
        DataError: the folder is missing or empty, or two of its images have one name.
    """
    found: dict[str, str] = {}
    for name in list_files(pairs_dir, log, FLAG, endings=ALL_EXTENSIONS):
        other = found.setdefault(stem(name), name)
        if other != name:
            raise DataError(
                f"{FLAG} {pairs_dir}: {other} and {name} are of one name, and which one belongs to "
                "the true image cannot be known; keep one of them"
            )
    return found


@lru_cache(maxsize=4)
def _known_partners(pairs_dir: str, _changed: int) -> Mapping[str, str]:
    """`partners_in`; where images are read one by one, the folder is listed once."""
    return partners_in(pairs_dir)


def _changed(folder: str) -> int:
    return os.stat(folder).st_mtime_ns


def listed(names: Iterable[str]) -> str:
    """How the first few of them are told."""
    known = list(names)
    return ", ".join(known[:_MAX_SHOWN]) + (" …" if len(known) > _MAX_SHOWN else "")


def factor_of_pair(true: tuple[int, int], measured: tuple[int, int]) -> int | None:
    """How many times smaller a measured image is, of both sizes (width, height); None if none."""
    return Size(true[1], true[0]).factor_over((measured[1], measured[0]))


@dataclass(frozen=True)
class MeasuredPair(CenterCrop):
    """How the crop of a pair is made of two files; `size` is a `PairSize`.

    Attributes:
        true: how the true image is read.
        partners: names of measured images by `stem`, in `pairs_dir`.
    """

    true: CenterCrop = field(kw_only=True)
    pairs_dir: str = field(kw_only=True)
    partners: Mapping[str, str] = field(kw_only=True)

    @classmethod
    def beside(cls, true: CenterCrop, size: PairSize, pairs_dir: str) -> MeasuredPair:
        """Pairs of what a recipe reads and the images of a folder; raises as `partners_in`."""
        common = true.data_dir, size, true.num_channels, true.apply_orientation
        stamp = -1 if is_remote(pairs_dir) or not os.path.isdir(pairs_dir) else _changed(pairs_dir)
        found = _known_partners(pairs_dir, stamp)
        return cls(*common, true=true, pairs_dir=pairs_dir, partners=found)

    @property
    def factor(self) -> int:
        """How many times smaller the measured image is along a side."""
        assert isinstance(self.size, PairSize)
        return self.size.factor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C + C)."""
        return *Size.of(self.size), 2 * self.num_channels

    def require_partners(self, names: Sequence[str]) -> None:
        """Refuse a list of true images of which one has no measured one; a DataError."""
        alone = [name for name in names if stem(name) not in self.partners]
        if alone:
            raise DataError(
                f"{FLAG} {self.pairs_dir}: {len(alone)} of {len(names)} images have no measured "
                f"one of their name ({listed(alone)}); add them, or list pairs alone with "
                f"sr_data_info.py {FLAG} --on_bad_image skip"
            )

    def cut(self, name: str) -> Crop:
        """Cut the pair of an image at the centre of the measured one.

        The crop is (H, W, C + C): the true image, and the measured one in blocks.

        Raises:
            BadImageError: as `CenterCrop.cut`, of either file.
            DataError: there is no measured image, or sizes do not fit.
        """
        return self._cut(name, lambda room: room // 2)

    def cut_at_random(self, name: str, rng: np.random.Generator) -> Crop:
        """Likewise at a place that is uniform over all whole pixels of the measured image.

        The state of `rng` advances by two draws.
        """
        return self._cut(name, lambda room: int(rng.integers(max(room, 0) + 1)))

    def cut_by(self, name: str, cut: Callable[[Image.Image], NDArray[Any]]) -> Crop:
        """Refused: a cut of one image does not say where the other one is cut."""
        raise NotImplementedError("pairs are cut by cut and cut_at_random")

    def _cut(self, name: str, place: Callable[[int], int]) -> Crop:
        size, factor = Size.of(self.size), self.factor
        small = Size(size.height // factor, size.width // factor)
        self.require_partners([name])
        partner = self.partners[stem(name)]
        true_size = (0, 0)
        # (left, top) of the measured crop: one place for all channels
        corner: tuple[int, int] | None = None

        def cut_true(image: Image.Image) -> NDArray[Any]:
            nonlocal corner, true_size
            true_size = image.size
            if image.width < size.width or image.height < size.height:
                raise self._too_small(name, image.size)
            if corner is None:
                top = place(image.height // factor - small.height)
                corner = place(image.width // factor - small.width), top
            return cut_out(image, (factor * corner[0], factor * corner[1]), size)

        def cut_measured(image: Image.Image) -> NDArray[Any]:
            if factor_of_pair(true_size, image.size) != factor:
                raise self._other_factor(partner, true_size, image.size)
            assert corner is not None
            return cut_out(image, corner, small)

        crop = self.true.cut_by(name, cut_true)
        measured = replace(self.true, data_dir=self.pairs_dir).cut_by(partner, cut_measured)
        blocks = measured.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        return Crop(np.concatenate([crop.pixels, blocks], axis=2), crop.facts)

    def _too_small(self, name: str, true: tuple[int, int]) -> DataError:
        return DataError(
            f"{name} is {true[0]}×{true[1]}, smaller than the {Size.of(self.size)} pixels of its "
            "crop, and measured pairs are never enlarged: leave it out of the list "
            "(sr_data_info.py --small_images skip does)"
        )

    def _other_factor(
        self, partner: str, true: tuple[int, int], measured: tuple[int, int]
    ) -> DataError:
        return DataError(
            f"{FLAG} {self.pairs_dir}: {partner} is {measured[0]}×{measured[1]}, its true image "
            f"{true[0]}×{true[1]}, and the network's sizes are {self.factor} times apart: make "
            "--large_size and --small_size fit the pairs, or leave this one out"
        )


def recipe_for(flags: object, size: SizeLike, true: CenterCrop) -> CenterCrop:
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
        return MeasuredPair.beside(true, size, pairs_dir)
    if pairs_dir:
        raise DataError(
            f"{FLAG} {pairs_dir}: the network was not trained on measured pairs; leave it out, or "
            "name a network that was"
        )
    return true


def require_pairs(recipe: CenterCrop, names: Sequence[str]) -> None:
    """Refuse a list of true images to be cut by a recipe of pairs of which one is no pair.

    Sizes are looked at when a pair is cut. Nothing is refused of other recipes.

    Raises:
        DataError: a true image, or its measured one, is missing.
    """
    if not isinstance(recipe, MeasuredPair):
        return
    recipe.require_partners(names)
    if is_remote(recipe.data_dir):
        return
    gone = [
        name for name in names if not os.path.lexists(resolve_image_path(recipe.data_dir, name))
    ]
    if gone:
        raise DataError(
            f"--data_dir {recipe.data_dir}: {len(gone)} of {len(names)} true images are missing "
            f"({listed(gone)}); add them, or list those that are there with sr_data_info.py {FLAG}"
        )


def split_pair(crops: Any, factor: int) -> tuple[Any, Any]:
    """(true images (N, C, H, W), measured ones (N, C, H/f, W/f)) of crops (N, C + C, H, W)."""
    num_channels = crops.shape[1] // 2
    return crops[:, :num_channels], crops[:, num_channels:, ::factor, ::factor]
