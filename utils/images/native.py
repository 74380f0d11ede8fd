"""Images of anybody in their own numbers: nothing is squeezed into 8 bits, alpha is kept apart.

Which kind of file it is its first bytes say: PNG (8 and 16 bits), JPEG, WEBP, BMP, TIFF
(`utils.images.tiff`) or `.npy`. `utils.images.files` reads photographs as 8-bit RGB instead.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import StrPath
from utils.images.files import (
    ALPHA,
    ORIENTATION,
    PAGES,
    REMEDY,
    BadImageError,
    ImageFacts,
    check_pixels,
    naming,
    orientation_of,
    read_content,
    require_whole_images,
    with_pillow,
)
from utils.images.geotiff import Placement
from utils.images.png16 import decode_png16, is_png16
from utils.images.tiff import check_bytes, decode_tiff, is_tiff
from utils.untrusted.arrays import parse_npy

# as float32, three channels of the largest photograph
MAX_NATIVE_BYTES = 1 << 30
# with a header
MAX_FILE_BYTES = MAX_NATIVE_BYTES + (1 << 20)
_NPY = b"\x93NUMPY"
_GREY_MODES = ("1", "L", "LA")
_HEADER_BYTES = 1 << 16
_SWAPPING, _TURNING = range(5, 9), range(2, 9)


@dataclass(frozen=True)
class NativeImage:
    """An image as its file has it.

    Attributes:
        pixels: (H, W, C), uint8, uint16 or float32 (of any floats), finite.
        alpha: (H, W) of the same type, or None. Premultiplied colours stay so.
        facts: sizes as in `pixels`; of `changes` all but the depth, which is kept.
        page: which of `num_pages` images of the file it is, from 0 on.
        num_pages: likewise.
        placement: where the pixels of a TIFF lie; empty if they were turned.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None
    facts: ImageFacts
    page: int = 0
    num_pages: int = 1
    placement: Placement = field(default_factory=Placement)

    @property
    def num_channels(self) -> int:
        """Without the alpha."""
        return int(self.pixels.shape[2])

    @property
    def type_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value of an integer type; None of floats."""
        if self.pixels.dtype.kind == "f":
            return None
        return 0.0, float(np.iinfo(self.pixels.dtype).max)

    def notices(self) -> list[str]:
        """What of the file is not in `pixels`: some words each, without its name."""
        found = []
        if self.alpha is not None:
            found.append("has an alpha channel, which is kept apart and not looked at")
        if self.num_pages > 1:
            found.append(f"has {self.num_pages} pages, of which page {self.page} is read")
        return found


def read_native(
    path: StrPath,
    *,
    apply_orientation: bool = False,
    page: int = 0,
    num_channels: int | None = None,
) -> NativeImage:
    """Read an image, local or remote, in the numbers of its file.

    Grey levels of two or 256 values become one channel, palettes and CMYK (without a profile) RGB.
    A `.npy` array is (H, W), or has its channels first or last: the shorter of these axes, the
    last one if both are equal. Of a TIFF see `decode_tiff`, of an animation the first frame counts.

    Args:
        apply_orientation: turn the image as its EXIF or TIFF tag says.
        page: of a TIFF, from 0 on.
        num_channels: how many are wanted, which tells what pages of grey levels are.

    Raises:
        FileNotFoundError: nothing is there.
        BadImageError: no whole image of these kinds; too large (`MAX_PIXELS`, `MAX_NATIVE_BYTES`);
            of integers of other sizes; with NaN or infinite values; without such a page.
        DataError: a TIFF, and tifffile is not installed.
    """
    options: dict[str, Any] = {"page": page, "num_channels": num_channels}
    data = read_content(path, MAX_FILE_BYTES)
    return decode_native(
        data, os.fspath(path), REMEDY, apply_orientation=apply_orientation, **options
    )


def decode_native(
    data: bytes,
    name: str,
    remedy: str,
    *,
    apply_orientation: bool = False,
    page: int = 0,
    num_channels: int | None = None,
    may_miss: bool = False,
) -> NativeImage:
    """The same of the bytes of a file; errors show `name` and `remedy`.

    With `may_miss` floats may be NaN, which is a pixel that was not measured.
    """
    require_whole_images()
    with naming(name, remedy):
        found = _decoded(data, apply_orientation, page, num_channels)
        if found is not None:
            _require_finite(found.pixels, may_miss)
            return found
    if page:
        raise BadImageError(f"{name}: page {page}, and it is no TIFF file. {remedy}")

    def decode(image: Image.Image) -> NativeImage:
        is_deep = is_png16(data)
        image.load()  # only then Pillow has read what a PNG says behind its pixels
        pixels: NDArray[Any]
        alpha: NDArray[Any] | None
        if is_deep:
            pixels, alpha = decode_png16(data, image.width, image.height)
        else:
            pixels, alpha = _parts(image)
        return _of_parts(pixels, alpha, orientation_of(image), apply_orientation)

    return with_pillow(data, name, remedy, decode)


class StoredKind(NamedTuple):
    """What `read_native` makes of a file: its channels without the alpha, and the type in words."""

    num_channels: int
    type: str

    def __str__(self) -> str:
        """In words."""
        channels = "1 channel" if self.num_channels == 1 else f"{self.num_channels} channels"
        return f"{channels} of {self.type}"


def stored_kind(path: StrPath) -> StoredKind:
    """The kind of a file, off its first bytes where they say it.

    Raises:
        FileNotFoundError, BadImageError, DataError: as `read_native`.
    """
    data = read_content(path, _HEADER_BYTES)
    if is_native_content(data):
        image = read_native(path)
        return StoredKind(image.num_channels, image.pixels.dtype.name)
    is_deep = is_png16(data)

    def kind(opened: Image.Image) -> StoredKind:
        is_grey = opened.mode in _GREY_MODES or opened.mode.startswith("I")
        return StoredKind(1 if is_grey else 3, "uint16" if is_deep else "uint8")

    with contextlib.suppress(BadImageError):  # a header behind a long profile, say
        return with_pillow(data, os.fspath(path), REMEDY, kind)
    return with_pillow(read_content(path, MAX_FILE_BYTES), os.fspath(path), REMEDY, kind)


def is_native_content(data: bytes) -> bool:
    """Whether the first bytes are those of a file that is read in its own numbers alone."""
    return is_tiff(data) or is_npy(data)


def is_npy(data: bytes) -> bool:
    """Whether the first bytes are those of a `.npy` file."""
    return data.startswith(_NPY)


def _decoded(
    data: bytes, apply_orientation: bool, page: int, num_channels: int | None
) -> NativeImage | None:
    """A TIFF or an array; None of what Pillow opens."""
    if is_tiff(data):
        found = decode_tiff(data, MAX_NATIVE_BYTES, page, num_channels)
        one = _of_parts(found.pixels, found.alpha, found.orientation, apply_orientation)
        more = (PAGES,) if found.num_pages > 1 else ()
        facts = replace(one.facts, changes=one.facts.changes + more)
        is_turned = apply_orientation and found.orientation in _TURNING
        placement = found.placement
        if is_turned:
            is_lost = placement.has_geo_tags
            placement = Placement(left_out=("its geo tags, since it is turned",) * is_lost)
        return replace(one, facts=facts, page=page, num_pages=found.num_pages, placement=placement)
    if is_npy(data):
        return _of_parts(_of_array(data), None, 1, apply_orientation)
    return None


def _of_array(data: bytes) -> NDArray[Any]:
    """The pixels (H, W, C) in a `.npy` file."""
    try:
        array = parse_npy(data)
    except ValueError as error:
        raise BadImageError(f"no whole .npy file ({error})") from None
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise BadImageError(f"its shape {array.shape} is not that of an image: (H, W, C) is")
    if array.shape[0] < array.shape[2]:
        array = np.moveaxis(array, 0, 2)
    check_pixels(array.shape[1], array.shape[0])
    check_bytes(4 * array.size, MAX_NATIVE_BYTES)
    native = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16, np.float32):
        raise BadImageError(f"its values are {array.dtype}: save it as uint8, uint16 or float32")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return np.ascontiguousarray(array, native)


def _parts(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """The 8-bit channels and the alpha of an image that Pillow decodes."""
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    is_grey = image.mode in _GREY_MODES
    if has_alpha:
        both = np.asarray(image.convert("LA" if image.mode == "LA" else "RGBA"))
        # a grey level that is transparent: all three colours are that level
        colours = both[:, :, :1] if is_grey else both[:, :, :-1]
        return np.ascontiguousarray(colours), np.ascontiguousarray(both[:, :, -1])
    pixels = np.array(image.convert("L" if is_grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1), None


def _of_parts(
    pixels: NDArray[Any], alpha: NDArray[Any] | None, orientation: int, is_applied: bool
) -> NativeImage:
    if is_applied:
        pixels = _turned(pixels, orientation)
        alpha = None if alpha is None else _turned(alpha, orientation)
    height, width = pixels.shape[:2]
    found = {ALPHA: alpha is not None, ORIENTATION: orientation in _TURNING}
    changes = tuple(kind for kind, is_there in found.items() if is_there)
    return NativeImage(pixels, alpha, ImageFacts(width, height, changes))


def _turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image (H, W, …) as EXIF's orientation says it is to be seen."""
    if orientation in _SWAPPING:
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[rows, columns])


def _require_finite(pixels: NDArray[Any], may_miss: bool) -> None:
    if pixels.dtype.kind != "f" or np.isfinite(pixels).all():
        return
    is_bad = np.isinf(pixels) if may_miss else ~np.isfinite(pixels)
    if not is_bad.any():
        return
    row, column, channel = (int(place[0]) for place in np.nonzero(is_bad))
    kinds = "infinite" if may_miss else "NaN or infinite"
    raise BadImageError(
        f"{int(is_bad.sum())} of its values are {kinds} in 32 bits, the first in row "
        f"{row}, column {column}, channel {channel}: fill them, or leave the image out"
    )
