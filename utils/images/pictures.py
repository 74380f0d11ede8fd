"""Pictures of people's choice of format."""

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
from utils.images.files import check_uint8

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

    .png, .webp and .tif keep every grey level; .jpg has a quality of 95.
    """
    check_uint8(image_uint8)
    kind, options = _FORMATS[os.path.splitext(os.fspath(path))[1].lower()]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_uint8)).save(buffer, format=kind, **options)
    write_bytes_atomic(path, buffer.getvalue())
