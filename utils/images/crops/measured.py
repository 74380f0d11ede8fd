"""Measured pairs: a true image, and a measured one of the same name that is cut at the same place.

The measured image has the size of the true one, or that over a whole factor. Both are read in the
same way (8 bits, or a range of values) unless a `Kind` says otherwise, and cut at their own
resolution. A crop holds both: the channels of the true image, then those of the measured one, whose
pixels are repeated to blocks. So whatever mirrors or turns a crop does the same to both.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import is_remote
from utils.images.crops.recipes import CenterCrop, CropRecipe
from utils.images.files import (
    ALL_EXTENSIONS,
    MAX_FILE_BYTES,
    BadImageError,
    Crop,
    cut_out,
    read_content,
    resolve_image_path,
    with_extension,
)
from utils.images.folder import file_stamps, list_files
from utils.process.errors import DataError
from utils.sizes import Size, SizeLike

FLAG = "--pairs_dir"
# what flags begin with that say how measured images are read
PAIRS = "pairs_"
_MAX_SHOWN = 5
# files whose content tells one folder from another
_NUM_LOOKED_AT = 16


class Kind(NamedTuple):
    """What measured images are, where they are not like the true ones.

    Attributes:
        num_channels: as many are read.
        values_range: as `CropFlags.values_range`.
    """

    num_channels: int
    values_range: tuple[float, float] | None = None


class PairSize(Size):
    """The size of a crop that is one of a pair.

    Attributes:
        factor: how many times smaller the measured image is along a side.
        kind: of the measured images; None: that of the true ones.
    """

    factor: int = 1
    kind: Kind | None = None

    @classmethod
    def over(cls, large: SizeLike, factor: int, kind: Kind | None = None) -> PairSize:
        """That size, of pairs of this factor."""
        made = cls(*Size.of(large))
        made.factor, made.kind = factor, kind
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
class MeasuredPair:
    """How the crop of a pair is made of two files.

    Attributes:
        true: how the true image is read, and the size of the crop.
        measured: how the measured one is read.
        factor: how many times smaller it is along a side.
        partners: names of measured images by `stem`.
    """

    true: CenterCrop
    measured: CenterCrop
    factor: int
    partners: Mapping[str, str]

    @classmethod
    def of(cls, true: CenterCrop, measured: CenterCrop, factor: int) -> MeasuredPair:
        """The pairs of two folders; raises as `partners_in`."""
        folder = measured.data_dir
        stamp = -1 if is_remote(folder) or not os.path.isdir(folder) else _changed(folder)
        return cls(true, measured, factor, _known_partners(folder, stamp))

    @property
    def folder(self) -> str:
        """Of the measured images."""
        return self.measured.data_dir

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C + C')."""
        return *Size.of(self.true.size), self.true.num_channels + self.measured.num_channels

    def require_partners(self, names: Sequence[str]) -> None:
        """Refuse a list of true images of which one has no measured one; a DataError."""
        alone = [name for name in names if stem(name) not in self.partners]
        if alone:
            raise DataError(
                f"{FLAG} {self.folder}: {len(alone)} of {len(names)} images have no measured one "
                f"of their name ({listed(alone)}); add them, or list pairs alone with "
                f"sr_data_info.py {FLAG} --on_bad_image skip"
            )

    def digest(self, names: Sequence[str]) -> str:
        """What tells the measured images of a list from others; a sha256.

        Their names and sizes in bytes count, and the content of some, from the first to the last:
        images of another camera differ everywhere. Where they lie does not count.

        Raises:
            DataError, FileNotFoundError: one is missing.
        """
        self.require_partners(names)
        partners = [self.partners[stem(name)] for name in names]
        digest, looked_at = hashlib.sha256(), {*partners[:: max(1, len(names) // _NUM_LOOKED_AT)]}
        for name, (size, _) in zip(
            partners, file_stamps(partners, self.folder).tolist(), strict=True
        ):
            digest.update(f"{size} {name}\0".encode("utf-8", "surrogateescape"))
            with contextlib.suppress(BadImageError):  # whoever reads it tells what is wrong
                if name in looked_at:
                    content = read_content(resolve_image_path(self.folder, name), MAX_FILE_BYTES)
                    digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def cut(self, name: str) -> Crop:
        """Cut the pair of an image at the centre of the measured one.

        The crop is (H, W, C + C'): the true image, and the measured one in blocks.

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

    def _cut(self, name: str, place: Callable[[int], int]) -> Crop:
        size, factor = Size.of(self.true.size), self.factor
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
        measured = self.measured.cut_by(partner, cut_measured)
        blocks = measured.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        return Crop(np.concatenate([crop.pixels, blocks], axis=2), crop.facts)

    def _too_small(self, name: str, true: tuple[int, int]) -> DataError:
        return DataError(
            f"{name} is {true[0]}×{true[1]}, smaller than the {Size.of(self.true.size)} pixels of "
            "its crop, and measured pairs are never enlarged: leave it out of the list "
            "(sr_data_info.py --small_images skip does)"
        )

    def _other_factor(
        self, partner: str, true: tuple[int, int], measured: tuple[int, int]
    ) -> DataError:
        return DataError(
            f"{FLAG} {self.folder}: {partner} is {measured[0]}×{measured[1]}, its true image "
            f"{true[0]}×{true[1]}, and the network's sizes are {self.factor} times apart: make "
            "--large_size and --small_size fit the pairs, or leave this one out"
        )


def require_pairs(recipe: CropRecipe, names: Sequence[str]) -> None:
    """Refuse a list of true images to be cut by a recipe of pairs of which one is no pair.

    Sizes are looked at when a pair is cut. Nothing is refused of other recipes.

    Raises:
        DataError: a true image, or its measured one, is missing.
    """
    if not isinstance(recipe, MeasuredPair):
        return
    recipe.require_partners(names)
    folder = recipe.true.data_dir
    if is_remote(folder):
        return
    gone = [name for name in names if not os.path.lexists(resolve_image_path(folder, name))]
    if gone:
        raise DataError(
            f"--data_dir {folder}: {len(gone)} of {len(names)} true images are missing "
            f"({listed(gone)}); add them, or list those that are there with sr_data_info.py {FLAG}"
        )


def split_pair(crops: Any, factor: int, num_channels: int) -> tuple[Any, Any]:
    """(true images (N, C, H, W), measured ones (N, C', H/f, W/f)) of crops (N, C + C', H, W).

    `num_channels` is C.
    """
    return crops[:, :num_channels], crops[:, num_channels:, ::factor, ::factor]
