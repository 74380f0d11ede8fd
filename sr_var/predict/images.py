"""Images that come in: one file becomes pixels with a range, and words on what did not reach them.

What formats there are is known here and in `utils.images`; the rest works on `LowRes`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_var.values import Units
from utils.files.atomic import is_remote, read_up_to
from utils.images.crops.native_crops import in_wanted_channels, require_range
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
from utils.metrics import WHITE
from utils.process.errors import DataError
from utils.sizes import Size

Log = Callable[[str], None]
REMEDY = "Get the file again, or take it out of --input"
_LOSSES = {
    DEPTH: "its 16 bits a value become 8",
    ALPHA: "its alpha channel is left out, the networks see the colours alone",
}
Bools = npt.NDArray[np.bool_]

# of the integers of images
_WHITES = MappingProxyType({np.uint8: 255.0, np.uint16: 65535.0})
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
        seen: (h, w), False where a mask hides the pixels, which are then in the middle of the
            range; None: no mask hides any.
        layers: what X holds beside it (`sr_var.predict.conditions`), each of these sides or of a
            multiple of them.
        unlike: what of the layers is unlike the training, in words.
    """

    pixels: npt.NDArray[Any]
    low: float = 0.0
    high: float = float(WHITE)
    notices: tuple[str, ...] = ()
    digest: str = ""
    placement: Placement = field(default_factory=Placement)
    seen: Bools | None = None
    layers: tuple[LowRes, ...] = ()
    unlike: tuple[str, ...] = ()

    @property
    def half(self) -> float:
        """Half of the range: what a step of 1 of a network is in units of the image."""
        return (self.high - self.low) / 2

    @property
    def grey_level(self) -> float:
        """A 255th of the range, in the unit of the image."""
        return (self.high - self.low) / WHITE

    @property
    def size(self) -> Size:
        """Height and width."""
        return Size(*self.pixels.shape[:2])

    def hiding(self, seen: Bools) -> LowRes:
        """The image where it is seen, (h, w), and in the middle of its range elsewhere."""
        both, middle = seen if self.seen is None else self.seen & seen, (self.low + self.high) / 2
        if not np.issubdtype(self.pixels.dtype, np.floating):
            middle = np.rint(middle)
        pixels = np.where(both[..., None], self.pixels, self.pixels.dtype.type(middle))
        return replace(self, pixels=pixels, seen=both)

    def share_outside(self) -> float:
        """The share of the values that lie outside of the range."""
        count = sum(
            int(((part < self.low) | (part > self.high)).sum()) for _, part in _strips(self.pixels)
        )
        return count / self.pixels.size

    @property
    def is_flat(self) -> bool:
        """Whether floats differ by less than a grey level, as those of another unit would."""
        span = float(self.pixels.max()) - float(self.pixels.min())
        return self.pixels.dtype.kind == "f" and span < self.grey_level


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
    return hashlib.sha256(content_of(path)).hexdigest()


@dataclass(frozen=True)
class Missing:
    """That pixels of an image may be missing, and so hold anything: NaN, transparent ones.

    Attributes:
        mask: (h, w), False for others that are missing; None: no others.
    """

    mask: Bools | None = None


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        apply_orientation: turn it as its EXIF or TIFF tag says.
        page: of a TIFF with several ones, from 0 on.
        missing: None: no pixel may be missing.
    """

    apply_orientation: bool = True
    page: int = 0
    missing: Missing | None = None


def read_low_res(path: str, units: Units, how: Reading) -> LowRes:
    """Read a whole file as the image that networks of such images see, in their unit.

    Networks of 8-bit pictures see every picture as these; TIFF and `.npy` files must be uint8.
    Others see a file in its own numbers. Grey levels serve three channels, colours one (luma).
    Of an image whose pixels may be missing `seen` says which are not, where the file tells it.

    Raises:
        BadImageError: no whole image, too large, with NaN, or of other channels, range or type.
        DataError: a TIFF, and tifffile is not installed.
    """
    data = content_of(path)
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():  # of bombs, which are refused in one line
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if units.is_8_bit and not is_native_content(data) and not how.page:
            found = _picture(data, path, units, how)
        else:
            found = _in_own_numbers(data, path, units, how)
    if is_grey(found.pixels):
        words = f"it is grey: each of the {units.num_channels} channels sees the same"
        found = replace(found, notices=(*found.notices, words))
    return replace(found, digest=digest)


def _picture(data: bytes, path: str, units: Units, how: Reading) -> LowRes:
    """A photograph in 8 bits."""
    turned = how.apply_orientation
    image, facts = decode_image(data, path, REMEDY, apply_orientation=turned)
    pixels = np.asarray(image)
    has_own_mask = how.missing is not None and ALPHA in facts.changes
    notices = [
        words
        for kind, words in _LOSSES.items()
        if kind in facts.changes and not (has_own_mask and kind == ALPHA)
    ]
    if units.num_channels == 1:
        if not is_grey(pixels):
            notices.append(_TO_GREY)
        pixels = in_channels(pixels, 1)
    with naming(path, REMEDY):
        pixels = in_wanted_channels(pixels, units.num_channels, units.whose)
    found = LowRes(pixels, units.low, units.high, tuple(notices))
    if not has_own_mask:
        return found
    alpha = decode_native(data, path, REMEDY, apply_orientation=turned).alpha
    return found if alpha is None else found.hiding(is_bright(alpha))


def _in_own_numbers(data: bytes, path: str, units: Units, how: Reading) -> LowRes:
    """An image in the numbers of its file."""
    num_channels, missing = units.num_channels, how.missing
    image = decode_native(
        data,
        path,
        REMEDY,
        apply_orientation=how.apply_orientation,
        page=how.page,
        num_channels=num_channels,
        may_miss=missing is not None,
    )
    if units.is_8_bit and image.pixels.dtype != np.uint8:
        raise BadImageError(
            f"{path}: its values are {image.pixels.dtype}, the networks were trained on 8-bit "
            "pictures: save it with 8 bits, or name networks that were trained on such images"
        )
    with naming(path, REMEDY):
        pixels = in_wanted_channels(image.pixels, num_channels, units.whose)
        found = LowRes(pixels, units.low, units.high, placement=image.placement)
        found = without_missing(found, missing)
        if missing is not None and image.alpha is not None:
            found, image = found.hiding(is_bright(image.alpha)), replace(image, alpha=None)
        require_range(found.pixels, image.type_range, units.low, units.high, units.whose)
    notices = [f"it {words}" for words in image.notices()]
    if image.num_channels > num_channels:
        notices.append(_TO_GREY)
    return replace(found, notices=tuple(notices))


def without_missing(image: LowRes, missing: Missing | None) -> LowRes:
    """The image with what is missing hidden: its NaN, and what a mask of its size hides."""
    if missing is None:
        return image
    if image.pixels.dtype.kind == "f" and (is_nan := np.isnan(image.pixels).any(axis=2)).any():
        image = image.hiding(~is_nan)
    mask = missing.mask
    return image if mask is None or mask.shape != image.size else image.hiding(mask)


def is_bright(mask: npt.NDArray[Any]) -> Bools:
    """Where a mask or an alpha (h, w), or (h, w, C) by the mean of its channels, is bright.

    Booleans are what they say; of numbers half of the white of their type is bright, 1 of those
    that hold only 0 and 1.

    Raises:
        BadImageError: other shapes, types or values; without the name of the file.
    """
    levels = mask.mean(axis=2) if mask.ndim == 3 else mask
    if levels.ndim != 2 or not levels.size:
        raise BadImageError(f"a mask of the shape {mask.shape}: give (h, w)")
    if mask.dtype == np.bool_:
        return np.asarray(levels >= 0.5)
    least, most = float(mask.min()), float(mask.max())
    is_float = np.issubdtype(mask.dtype, np.floating)
    white = 1.0 if is_float or most <= 1 else _WHITES.get(mask.dtype.type, 1.0)
    if not (least >= 0 and most <= white):  # nan is neither
        raise BadImageError(
            f"a mask of {mask.dtype} from {least:g} to {most:g}: give a picture, booleans, or "
            "numbers from 0 (hidden) to 1 (seen)"
        )
    return np.asarray(levels >= (0.5 if is_float else (white + 1) / 2))


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


def content_of(path: str) -> bytes:
    """The bytes of an image's file.

    Raises:
        BadImageError: it cannot be read.
    """
    try:
        return read_up_to(path, MAX_FILE_BYTES)
    except IsADirectoryError:
        raise BadImageError(f"{path}: a folder, not an image. {REMEDY}") from None
    except FileNotFoundError:
        raise BadImageError(f"{path}: no such file. {REMEDY}") from None
    except DataError as error:
        raise BadImageError(f"{error}. {REMEDY}") from None
