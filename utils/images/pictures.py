"""Pictures of grey levels as files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.files.atomic import StrPath, write_bytes_atomic

# ending → Pillow's format and options
_FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        ".png": ("PNG", {}),
        ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
        ".webp": ("WEBP", {"lossless": True}),
        ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    }
)


def write_picture(path: StrPath, image_uint8: NDArray[np.uint8]) -> None:
    """Replace `path` by a picture of (H, W, 3) or (H, W) grey levels, in the format of its ending.

    .png, .webp and .tif keep every grey level; .jpg has a quality of 95. ValueError for another
    ending, type or shape; else see `atomic_write`.
    """
    check_uint8(image_uint8)
    if image_uint8.ndim != 2 and (image_uint8.ndim != 3 or image_uint8.shape[2] != 3):
        raise ValueError(f"shape {image_uint8.shape}: a picture takes (H, W, 3) or (H, W)")
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in _FORMATS:
        raise ValueError(f"{os.fspath(path)}: pictures end in {', '.join(_FORMATS)}")
    kind, options = _FORMATS[ending]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_uint8)).save(buffer, format=kind, **options)
    write_bytes_atomic(path, buffer.getvalue())


def check_uint8(image: NDArray[Any]) -> None:
    """Raise ValueError for what is no array of grey levels."""
    if image.dtype != np.uint8:
        raise ValueError(
            f"dtype {image.dtype}: expected uint8 grey levels (see utils.images.pixels)"
        )
