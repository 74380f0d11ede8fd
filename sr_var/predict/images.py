"""Images that come in: one file becomes pixels with a range, and words on what did not reach them.

What formats there are is known here and in `utils.images`; the rest works on `LowRes`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_var.values import Units
from utils.files.atomic import is_remote, read_up_to
from utils.images.files import (
    ALL_EXTENSIONS,
    ALPHA,
    DEPTH,
    BadImageError,
    decode_image,
    in_channels,
    naming,
)
from utils.images.folder import list_files
from utils.images.geotiff import Placement
from utils.images.native import MAX_FILE_BYTES, decode_native, is_native_content
from utils.images.native_crops import in_wanted_channels, require_range
from utils.metrics import WHITE
from utils.process.errors import DataError

Log = Callable[[str], None]
_REMEDY = "Get the file again, or take it out of --input"
_LOSSES = {
    DEPTH: "its 16 bits a value become 8",
    ALPHA: "its alpha channel is left out, the networks see the colours alone",
}

_TO_GREY = "its colours become grey levels (luma), the networks see one channel"


@dataclass(frozen=True)
class LowRes:
    """A low-res image as the networks are to see it.

    Attributes:
        pixels: (h, w, C), of any real type.
        low: the value that is -1 to the networks, in units of the image.
        high: the value that is 1 to them.
        notices: what of the file does not reach the pixels.
        digest: sha256 of the file; empty for an image of the memory.
        placement: where the pixels of a TIFF lie.
    """

    pixels: npt.NDArray[Any]
    low: float = 0.0
    high: float = float(WHITE)
    notices: tuple[str, ...] = ()
    digest: str = ""
    placement: Placement = field(default_factory=Placement)

    @property
    def half(self) -> float:
        """Half of the range: what a step of 1 of a network is in units of the image."""
        return (self.high - self.low) / 2

    @property
    def grey_level(self) -> float:
        """A 255th of the range, in the unit of the image."""
        return (self.high - self.low) / WHITE

    def share_outside(self) -> float:
        """The share of the values that lie outside of the range."""
        count = sum(
            int(((part < self.low) | (part > self.high)).sum()) for _, part in _strips(self.pixels)
        )
        return count / self.pixels.size


@dataclass(frozen=True)
class InputFile:
    """One image to work on: where it lies, and the name of its results."""

    path: str
    name: str


def find_inputs(place: str, log: Log, flag: str = "--input") -> list[InputFile]:
    """The image at a path, or all below a folder, sorted; `flag` named it.

    A result is named as its image without the ending; with it where two images differ in nothing
    else. `log` receives what is left out.

    Raises:
        DataError: nothing is there, or no image.
    """
    if is_remote(place):
        raise DataError(f"{flag} {place} is remote; copy the images to this machine")
    if not os.path.isdir(place):
        if not os.path.lexists(place):
            raise DataError(f"{flag} {place} does not exist; name an image or a folder of images")
        return [InputFile(place, os.path.splitext(os.path.basename(place))[0])]
    files = list_files(place, log, flag, endings=ALL_EXTENSIONS)
    stems = [os.path.splitext(file)[0] for file in files]
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem] = counts.get(stem, 0) + 1
    return [
        InputFile(os.path.join(place, file), stem if counts[stem] == 1 else file)
        for file, stem in zip(files, stems, strict=True)
    ]


def digest_of(path: str) -> str:
    """The sha256 of an image's file.

    Raises:
        BadImageError: it cannot be read.
    """
    return hashlib.sha256(_content(path)).hexdigest()


def read_low_res(path: str, units: Units, *, apply_orientation: bool, page: int = 0) -> LowRes:
    """Read a whole file as the image that networks of such images see, in their unit.

    Networks of 8-bit pictures see every picture as these; TIFF and `.npy` files must be uint8.
    Others see a file in its own numbers. Grey levels serve three channels, colours one (luma).

    Args:
        page: of a TIFF with several ones, from 0 on.

    Raises:
        BadImageError: no whole image, too large, with NaN, or of other channels, range or type.
        DataError: a TIFF, and tifffile is not installed.
    """
    data = _content(path)
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():  # of bombs, which are refused in one line
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if units.is_8_bit and not is_native_content(data) and not page:
            found = _picture(data, path, units, apply_orientation)
        else:
            found = _in_own_numbers(data, path, units, apply_orientation, page)
    if is_grey(found.pixels):
        words = f"it is grey: each of the {units.num_channels} channels sees the same"
        found = replace(found, notices=(*found.notices, words))
    return replace(found, digest=digest)


def _picture(data: bytes, path: str, units: Units, apply_orientation: bool) -> LowRes:
    """A photograph in 8 bits."""
    image, facts = decode_image(data, path, _REMEDY, apply_orientation=apply_orientation)
    pixels = np.asarray(image)
    notices = [words for kind, words in _LOSSES.items() if kind in facts.changes]
    if units.num_channels == 1:
        if not is_grey(pixels):
            notices.append(_TO_GREY)
        pixels = in_channels(pixels, 1)
    with naming(path, _REMEDY):
        pixels = in_wanted_channels(pixels, units.num_channels)
    return LowRes(pixels, units.low, units.high, tuple(notices))


def _in_own_numbers(
    data: bytes, path: str, units: Units, apply_orientation: bool, page: int
) -> LowRes:
    """An image in the numbers of its file."""
    num_channels = units.num_channels
    image = decode_native(
        data,
        path,
        _REMEDY,
        apply_orientation=apply_orientation,
        page=page,
        num_channels=num_channels,
    )
    if units.is_8_bit and image.pixels.dtype != np.uint8:
        raise BadImageError(
            f"{path}: its values are {image.pixels.dtype}, the networks were trained on 8-bit "
            "pictures: save it with 8 bits, or name networks that were trained on such images"
        )
    with naming(path, _REMEDY):
        pixels = in_wanted_channels(image.pixels, num_channels)
        require_range(pixels, image.type_range, units.low, units.high)
    notices = [f"it {words}" for words in image.notices()]
    if image.num_channels > num_channels:
        notices.append(_TO_GREY)
    return LowRes(pixels, units.low, units.high, tuple(notices), placement=image.placement)


def is_grey(pixels: npt.NDArray[Any]) -> bool:
    """Whether the channels of (h, w, C), more than one, are equal everywhere."""
    first = pixels[..., :1]
    # most images of colours differ in their first rows
    return pixels.shape[2] > 1 and all(
        bool((part == first[rows]).all()) for rows, part in _strips(pixels)
    )


def _strips(pixels: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    for start in range(0, len(pixels), 64):
        rows = slice(start, start + 64)
        yield rows, pixels[rows]


def _content(path: str) -> bytes:
    try:
        return read_up_to(path, MAX_FILE_BYTES)
    except IsADirectoryError:
        raise BadImageError(f"{path}: a folder, not an image. {_REMEDY}") from None
    except FileNotFoundError:
        raise BadImageError(f"{path}: no such file. {_REMEDY}") from None
    except DataError as error:
        raise BadImageError(f"{error}. {_REMEDY}") from None
