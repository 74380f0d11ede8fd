"""Float32 TIFF files that are written row by row, and read so again.

Not packed, so that an image never has to fit into the memory; of more than 4 GiB they are BigTIFF.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np

from utils.images.geotiff import Placement
from utils.process.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

# where offsets of 32 bits end, with room for the tags
_LARGEST_CLASSIC = (1 << 32) - (1 << 24)
_STRIP_BYTES = 1 << 18


def tifffile_module() -> ModuleType:
    """The package that knows the tags.

    Raises:
        DataError: it is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise DataError(
            "TIFF files need the package tifffile: ./setup.sh tiff, or pip install tifffile"
        ) from None
    return tifffile


def start_float_tiff(
    file: IO[Any], shape: tuple[int, int, int], placement: Placement, description: str = ""
) -> None:
    """Write all but the pixels of a new file, and stand where they belong.

    Write H · W · C float32 in little-endian order then: rows from the top, channels of a pixel
    side by side. Three channels are RGB, others grey levels.

    Args:
        shape: (H, W, C).
        placement: of these pixels.
        description: what the numbers are, ASCII.
    """
    height, width, num_channels = shape
    row_bytes = 4 * width * num_channels
    options: dict[str, Any] = {"photometric": "rgb" if num_channels == 3 else "minisblack"}
    if num_channels > 1:
        options["planarconfig"] = "contig"
    if placement.resolution is not None:
        *options["resolution"], options["resolutionunit"] = placement.resolution
    tifffile = tifffile_module()
    is_large = height * row_bytes > _LARGEST_CLASSIC
    with tifffile.TiffWriter(file, bigtiff=is_large, byteorder="<") as writer:
        start, _ = writer.write(
            None,
            shape=(height, width) if num_channels == 1 else shape,
            dtype=np.float32,
            rowsperstrip=max(1, _STRIP_BYTES // row_bytes),
            returnoffset=True,
            metadata=None,
            description=description or None,
            software="",
            extratags=placement.extra_tags(),
            **options,
        )
    file.seek(start)


def float_tiff_layout(path: str) -> tuple[tuple[int, int, int], int]:
    """Shape (H, W, C) and the place of the first pixel of such a file.

    Raises:
        DataError: it is another TIFF file, or none.
    """
    tifffile = tifffile_module()
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
            start: int = page.dataoffsets[0]
            is_ours = page.is_contiguous and page.dtype == np.float32 and file.byteorder == "<"
    except Exception as error:  # whoever changed it can make tifffile raise anything
        raise DataError(f"{path} cannot be read ({error}); delete it and predict again") from None
    if not is_ours:
        raise DataError(f"{path} was changed by another program; delete it and predict again")
    return shape, start
