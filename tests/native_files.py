"""TIFF and 16-bit PNG files to read, as other programs write them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.images.float_tiff import start_float_tiff
from utils.images.geotiff import Placement

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def tiff_of(array: NDArray[Any], **options: Any) -> bytes:
    """A TIFF file, as `tifffile.imwrite` makes it with these options."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def geo_keys(raster_type: int) -> tuple[int, ...]:
    """A GeoKeyDirectory: projected, raster of areas (1) or points (2), a citation, an axis."""
    entries = (1024, 0, 1, 1), (1025, 0, 1, raster_type), (1026, 34737, 10, 0), (2057, 34736, 1, 0)
    return (1, 1, 0, len(entries), *(value for entry in entries for value in entry))


def geo_tiff(array: NDArray[Any], raster_type: int = 1, *, more: Any = (), **options: Any) -> bytes:
    """A GeoTIFF of pixels of 10 × 20 m whose first one lies at (500, 900); `more` are tags."""
    tags = [
        (33550, "d", 3, (10.0, 20.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0), True),
        (34735, "H", 20, geo_keys(raster_type), True),
        (34736, "d", 1, (6378137.0,), True),
        (34737, "s", 0, "somewhere|", True),
    ]
    return tiff_of(array, extratags=[*tags, *more], **options)


def float_tiff() -> bytes:
    """A float TIFF as `start_float_tiff` begins it."""
    buffer = io.BytesIO()
    start_float_tiff(buffer, (9, 7, 3), Placement(resolution=(30.0, 60.0, 2)), "std")
    buffer.write(np.linspace(-1, 300, 9 * 7 * 3, dtype="<f4").tobytes())
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _filtered(row: bytes, above: bytes, kind: int, step: int) -> bytes:
    """A line as PNG stores it, byte by byte as the specification says."""
    found = bytearray([kind])
    for i, value in enumerate(row):
        a, b, c = (row[i - step], above[i], above[i - step]) if i >= step else (0, above[i], 0)
        distances = [abs(b - c), abs(a - c), abs(a + b - 2 * c)]
        nearest = (a, b, c)[distances.index(min(distances))]
        found.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(found)


def png16_lines(array: NDArray[np.uint16], kinds: tuple[int, ...]) -> bytes:
    """The lines of an array (H, W, C), whose filters take turns."""
    step, lines, above = 2 * array.shape[2], b"", bytes(2 * array[0].size)
    for i, row in enumerate(array.astype(">u2")):
        lines += _filtered(row.tobytes(), above, kinds[i % len(kinds)], step)
        above = row.tobytes()
    return lines


def png16_of(
    array: NDArray[np.uint16],
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4),
    *more: bytes,
    lines: bytes = b"",
    is_interlaced: bool = False,
) -> bytes:
    """A PNG of (H, W, C); 2 and 4 channels end with the alpha; `more` are chunks before the pixels.

    `lines` replace those of the pixels.
    """
    height, width, num_channels = array.shape
    kind = (16, _COLOUR_TYPES[num_channels], 0, 0, int(is_interlaced))
    packed = zlib.compress(lines or png16_lines(array, kinds))
    half = len(packed) // 2
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *kind)),
            *more,
            png_chunk(b"IDAT", packed[:half]),
            png_chunk(b"IDAT", packed[half:]),
            png_chunk(b"IEND", b""),
        ]
    )


NATIVE = (
    *("TIFF RGB", "TIFF deflate", "TIFF 16-bit", "TIFF tiles of floats", "TIFF pages"),
    *("TIFF ImageJ", "TIFF OME", "BigTIFF", "TIFF LZW", "TIFF PackBits", "GeoTIFF"),
    *("PNG 16-bit", "PNG 16-bit alpha", "npy"),
)


def native_seeds() -> dict[str, bytes]:
    """A small file of each kind that is read in its own numbers; the last byte may be padding."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    deep = rng.integers(0, 65536, (9, 7, 4)).astype(np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(deep, 2, 0))
    floats = rng.random((20, 18)).astype(np.float32)
    array = io.BytesIO()
    np.save(array, floats)
    grey = {"photometric": "minisblack"}
    options: dict[str, Any] = {"byteorder": ">", "predictor": True, "compression": "zlib"}
    found = [
        tiff_of(rgb, photometric="rgb"),
        tiff_of(rgb, photometric="rgb", **options),
        tiff_of(deep[..., 0]),
        tiff_of(floats, tile=(16, 16), compression="zlib"),
        tiff_of(planes, **grey),
        tiff_of(planes, imagej=True, metadata={"axes": "CYX"}),
        tiff_of(planes, ome=True, metadata={"axes": "CYX"}, **grey),
        tiff_of(deep[..., 0], bigtiff=True),
        *(_of_libtiff(rgb, compression) for compression in ("tiff_lzw", "packbits")),
        geo_tiff(deep[..., 0], resolution=(30, 60)),
        png16_of(deep[..., :3]),
        png16_of(deep),
        array.getvalue(),
    ]
    return dict(zip(NATIVE, found, strict=True))


def _of_libtiff(array: NDArray[Any], compression: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF", compression=compression)
    return buffer.getvalue()
