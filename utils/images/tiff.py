"""TIFF files of anybody: 8 and 16-bit integers and floats, any number of channels, several pages.

`tifffile` (an extra) reads the tags. The pixels are unpacked here, strip by strip, because its
decoders unpack whatever a strip says: here no more than the image has room for. LZW and PackBits
are left to libtiff, by Pillow, as pictures of bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.images.files import BadImageError, check_pixels
from utils.images.float_tiff import tifffile_module
from utils.images.geotiff import Placement, placement_of
from utils.process.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MAX_PAGES = 4096
MAX_PACKED_BYTES = 1 << 26
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# numbers of the TIFF specification (6.0 and its supplements)
_NO_COMPRESSION, _LZW, _PACKBITS, _DEFLATES = 1, 5, 32773, (8, 32946)
_NO_PREDICTOR, _HORIZONTAL, _FLOAT = 1, 2, 3
_SEPARATE = 2  # planes of one channel each
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ALPHAS = (1, 2)  # among the extra samples: premultiplied or not
_REDUCED = 1  # the bit of a smaller copy among the pages
_DESCRIPTION, _ORIENTATION_TAG = 270, 274
_DTYPES = {"u1": np.uint8, "u2": np.uint16, "f2": np.float32, "f4": np.float32, "f8": np.float32}
# how many channels a file says that its pages are: ImageJ's and OME's descriptions
_CHANNELS_OF_PAGES = (
    re.compile(r"\AImageJ=.*^channels=(\d+)\s*$", re.MULTILINE | re.DOTALL),
    re.compile(r"\bSizeC=\"(\d+)\""),
)
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # errors say it in our words


@dataclass(frozen=True)
class TiffImage:
    """What one page says, or several pages that are the channels of one image.

    Attributes:
        pixels: (H, W, C), uint8, uint16 or float32, as stored: not turned.
        alpha: (H, W) of the same type, or None.
        orientation: 1 (upright) to 8, as in EXIF.
        num_pages: images in the file; smaller copies of them do not count.
        placement: where the pixels lie.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None
    orientation: int
    num_pages: int
    placement: Placement


def is_tiff(data: bytes) -> bool:
    """Whether the first bytes of a file say TIFF or BigTIFF."""
    return data.startswith(_MAGIC)


def decode_tiff(
    data: bytes, max_bytes: int, page: int = 0, num_channels: int | None = None
) -> TiffImage:
    """Decode one page, or all pages where they are the channels of one image.

    They are where the file says so (`channels=` of ImageJ, `SizeC` of OME), or where the caller
    wants as many channels (`num_channels`) as the file has pages of grey levels.

    Raises:
        BadImageError: truncated, damaged, of a kind that is not read, larger than `MAX_PIXELS` or
            `max_bytes`, or without such a page; without the name of the file.
        DataError: tifffile is not installed.
    """
    tifffile = tifffile_module()
    try:
        # no code for the dialects of microscopes: they are read as what the standard says
        dialects: Any = dict.fromkeys(("is_lsm", "is_scanimage", "is_ndpi"), False)
        with tifffile.TiffFile(io.BytesIO(data), **dialects) as file:
            order, pages = file.byteorder, _pages(file, data)
            if not 0 <= page < len(pages):
                raise BadImageError(f"page {page} of {len(pages)}: there is none, count from 0")
            is_one = num_channels == len(pages) or _says_channels(pages)
            if len(pages) == 1 or not is_one or any(one.samplesperpixel > 1 for one in pages):
                one = pages[page]
                found = _read_page(one, data, order, max_bytes)
                return TiffImage(*found, _orientation(one), len(pages), _placement(one))
            check_bytes(len(pages) * _num_bytes(pages[0]), max_bytes)
            layers = [_read_page(one, data, order, max_bytes)[0] for one in pages]
            if len({(layer.shape, layer.dtype) for layer in layers}) > 1:
                raise BadImageError("its pages differ in size or type and are no channels")
            whole, first = np.concatenate(layers, axis=2), pages[0]
            return TiffImage(whole, None, _orientation(first), 1, _placement(first))
    except DataError:
        raise
    except Exception as error:  # a damaged tag can ask tifffile, or us, for anything
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise BadImageError(f"damaged TIFF file ({reason})") from None


def check_bytes(num_bytes: int, max_bytes: int) -> None:
    """Raise BadImageError, without a name, for an image that would fill the memory."""
    if num_bytes > max_bytes:
        raise BadImageError(f"its pixels take {num_bytes / 2**20:.0f} MiB of {max_bytes >> 20}")


def _pages(file: TiffFile, data: bytes) -> Sequence[TiffPage]:
    """The images, at least one; tifffile follows links of pages for ever if they go in a circle."""
    with contextlib.suppress(IndexError):
        _ = file.pages[MAX_PAGES]
        raise BadImageError(f"it has more than {MAX_PAGES} pages, or they go in a circle")
    order: Literal["little", "big"] = "little" if file.byteorder == "<" else "big"
    # where tifffile stopped reading there must be no link
    end, num_bytes = file.pages.next_page_offset or len(data), file.tiff.offsetsize
    if data[end : end + num_bytes] != bytes(num_bytes):
        raise BadImageError(f"cut off behind page {len(file.pages) - 1}")
    pages: Iterable[Any] = file.pages  # of all tags: frames come only where they are asked for
    found: list[TiffPage] = [one for one in pages if not one.subfiletype & _REDUCED]
    if not found:
        raise BadImageError("it holds no page")
    entries = found[0].offset + file.tiff.tagnosize
    size, count = file.tiff.tagsize, int.from_bytes(data[found[0].offset : entries], order)
    codes = (data[at : at + 2] for at in range(entries, entries + count * size, size))
    if _DESCRIPTION.to_bytes(2, order) in codes and _DESCRIPTION not in found[0].tags:
        raise BadImageError("cut off: its description, which may say what its pages are, is gone")
    return found


def _says_channels(pages: Sequence[TiffPage]) -> bool:
    found = (pattern.search(pages[0].description) for pattern in _CHANNELS_OF_PAGES)
    return any(match is not None and int(match[1]) == len(pages) for match in found)


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _placement(page: TiffPage) -> Placement:
    return placement_of(lambda code: page.tags.valueof(code))


def _num_bytes(page: TiffPage) -> int:
    size = 0 if page.dtype is None else np.dtype(page.dtype).itemsize
    return page.imagewidth * page.imagelength * page.samplesperpixel * max(4, size)


def _read_page(
    page: TiffPage, data: bytes, order: Literal["<", ">"], max_bytes: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The channels (H, W, C) and the alpha of a page."""
    dtype = _require_readable(page, max_bytes)
    num_samples, is_planar = page.samplesperpixel, page.planarconfig == _SEPARATE
    segments = _Segments.of(page, dtype.newbyteorder(order))
    image = np.empty((page.imagelength, page.imagewidth, num_samples), dtype)
    depth = 1 if is_planar else num_samples
    for plane in range(num_samples if is_planar else 1):
        samples = slice(plane, plane + 1) if is_planar else slice(None)
        for rows, columns, pixels in segments.of_plane(data, plane, depth):
            target = image[rows, columns, samples]
            target[...] = pixels[: target.shape[0], : target.shape[1]]
    if page.photometric == _WHITE_IS_ZERO:
        if dtype.kind == "f":
            raise BadImageError("floats of which 0 is white: store them as black is zero")
        np.subtract(np.iinfo(dtype).max, image, out=image)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        image = image.astype(_DTYPES[f"{dtype.kind}{dtype.itemsize}"], copy=False)
    alphas = [i for i, kind in enumerate(page.extrasamples) if kind in _ALPHAS]
    if not alphas:
        return image, None
    place = num_samples - len(page.extrasamples) + alphas[0]
    return np.delete(image, place, axis=2), np.ascontiguousarray(image[..., place])


def _require_readable(page: TiffPage, max_bytes: int) -> np.dtype[Any]:
    """The type of the values as stored; BadImageError, without the file's name, if not read."""
    dtype = None if page.dtype is None else np.dtype(page.dtype)
    is_known = dtype is not None and f"{dtype.kind}{dtype.itemsize}" in _DTYPES
    if dtype is None or not is_known or page.bitspersample != 8 * dtype.itemsize:
        raise BadImageError(
            f"{_name_of(page.bitspersample)} bits of sample format {int(page.sampleformat)}: save "
            "it with 8 or 16-bit unsigned integers or with floats"
        )
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise BadImageError(
            f"its colours are of the kind {_name_of(page.photometric)}: save it as grey levels, "
            "RGB or channels"
        )
    if page.compression not in (_NO_COMPRESSION, _LZW, _PACKBITS, *_DEFLATES):
        raise BadImageError(
            f"compression {_name_of(page.compression)} is not read: save it with deflate, LZW or "
            "none"
        )
    sizes = (page.imagewidth, page.imagelength, page.samplesperpixel)
    is_plain = page.imagedepth == 1 and page.fillorder == 1 and page.planarconfig in (1, _SEPARATE)
    is_plain &= len(page.extrasamples) < page.samplesperpixel and min(sizes) > 0
    if not is_plain:
        raise BadImageError(f"it is no image of {sizes[0]}x{sizes[1]} pixels: save it as one")
    check_pixels(*sizes[:2])
    check_bytes(_num_bytes(page), max_bytes)
    return dtype


def _name_of(value: Any) -> str:
    return str(getattr(value, "name", value))[:50]  # a damaged tag has any number of values


@dataclass(frozen=True)
class _Segments:
    """The strips or tiles of a page, and how their bytes become values.

    Attributes:
        page: with the places of the segments.
        dtype: of the values in the file, with its order of bytes.
        width: pixels of a segment, likewise `height` but for the last strip.
        is_tiled: whether the last ones are whole.
    """

    page: TiffPage
    dtype: np.dtype[Any]
    width: int
    height: int
    is_tiled: bool

    @classmethod
    def of(cls, page: TiffPage, dtype: np.dtype[Any]) -> _Segments:
        """Those of a page whose sizes were checked."""
        is_tiled = bool(page.tilewidth and page.tilelength)
        width = page.tilewidth if is_tiled else page.imagewidth
        height = page.tilelength if is_tiled else page.rowsperstrip
        if width < 1 or height < 1:
            raise BadImageError("its strips or tiles have no size")
        found = cls(page, dtype, width, height, is_tiled)
        columns, rows = found._grid
        if is_tiled:
            check_pixels(columns * width, rows * height, "in tiles, ")
        num_planes = page.samplesperpixel if page.planarconfig == _SEPARATE else 1
        if len(page.dataoffsets) != columns * rows * num_planes:
            raise BadImageError(
                f"it has {len(page.dataoffsets)} strips or tiles instead of "
                f"{columns * rows * num_planes}"
            )
        return found

    @property
    def _grid(self) -> tuple[int, int]:
        width, height = self.page.imagewidth, self.page.imagelength
        return math.ceil(width / self.width), math.ceil(height / self.height)

    def of_plane(
        self, data: bytes, plane: int, depth: int
    ) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        """Rows, columns and values (rows, columns, depth) of each segment; a tile may be larger."""
        columns, rows = self._grid
        for index in range(columns * rows):
            row, column = divmod(index, columns)
            top, left = row * self.height, column * self.width
            height = self.height if self.is_tiled else min(self.height, self.page.imagelength - top)
            pixels = self._values(data, plane * columns * rows + index, (height, self.width, depth))
            yield slice(top, top + height), slice(left, left + self.width), pixels

    def _values(self, data: bytes, index: int, shape: tuple[int, int, int]) -> NDArray[Any]:
        size, compression = math.prod(shape) * self.dtype.itemsize, self.page.compression
        start, counts = self.page.dataoffsets[index], self.page.databytecounts
        count = counts[index] if index < len(counts) else 0
        if compression == _NO_COMPRESSION:
            count = size
        packed = data[start : start + count]
        if compression in _DEFLATES:
            raw = zlib.decompressobj().decompress(packed, size)
        elif compression == _NO_COMPRESSION:
            raw = packed
        else:
            raw = _unpacked(packed, compression, size)
        if len(packed) < count or len(raw) < size:
            raise BadImageError(f"cut off: {len(raw)} of {size} bytes in strip or tile {index}")
        return self._without_predictor(np.frombuffer(raw, np.uint8, size), shape)

    def _without_predictor(self, raw: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[Any]:
        predictor, size = self.page.predictor, self.dtype.itemsize
        if self.page.compression == _NO_COMPRESSION or predictor == _NO_PREDICTOR:
            return raw.view(self.dtype).reshape(shape)
        if predictor == _HORIZONTAL:
            whole = self.dtype.str[0] + f"u{size}"
            steps = raw.view(whole).reshape(shape).astype(f"=u{size}")
            return np.cumsum(steps, axis=1, dtype=steps.dtype).view(f"={self.dtype.str[1:]}")
        if predictor == _FLOAT and self.dtype.kind == "f":
            # by row: differences of bytes; first the most significant byte of all values, and so on
            height, width, depth = shape
            planes = np.cumsum(raw.reshape(height, -1, depth), axis=1, dtype=np.uint8)
            bytes_ = planes.reshape(height, size, width * depth).swapaxes(1, 2)
            return np.ascontiguousarray(bytes_).view(f">f{size}").reshape(shape)
        raise BadImageError(f"predictor {_name_of(predictor)} does not go with its values")


def _unpacked(packed: bytes, compression: int, size: int) -> bytes:
    """Bytes of LZW or PackBits, which libtiff takes for a picture of one row, a byte a pixel."""
    if size > MAX_PACKED_BYTES:
        raise BadImageError(
            f"{size} bytes in a strip of LZW or PackBits, {MAX_PACKED_BYTES} are read: save it "
            "with deflate or in more strips"
        )
    # tag, type (3: 16 bits, 4: 32 bits), count, value: sizes, 8 bits, black is zero, one strip
    values = {256: size, 257: 1, 258: 8, 259: int(compression), 262: 1, 277: 1, 278: 1}
    values |= {273: 8, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, values[tag]) for tag in sorted(values))
    start = 8 + len(packed) + len(packed) % 2
    picture = struct.pack("<2sHI", b"II", 42, start) + packed.ljust(start - 8, b"\0")
    picture += struct.pack("<H", len(values)) + entries + bytes(4)
    with Image.open(io.BytesIO(picture), formats=("TIFF",)) as image:
        found: bytes = image.tobytes()
    return found
