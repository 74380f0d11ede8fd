"""Grey levels to floats in [-1, 1] and back, on tensors, and pictures of tensors in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.images.files import check_uint8, write_png
from utils.process.errors import CheckpointError


def bytes_to_image(image_uint8: Tensor) -> Tensor:
    """Grey levels 0..255 to float in [-1, 1]."""
    return image_uint8.to(torch.float32) / 127.5 - 1


def image_to_255(image: Tensor) -> Tensor:
    """Float in [-1, 1] to grey levels, neither rounded nor clipped."""
    return (image + 1) * 127.5


def image_to_bytes(image: Tensor) -> Tensor:
    """Float in [-1, 1] to the nearest grey level, clipped to 0..255; all 256 levels survive."""
    return image_to_255(image).round().clamp(0, 255).to(torch.uint8)


def to_hwc(image: torch.Tensor) -> NDArray[Any]:
    """CHW tensor → contiguous HWC array on the CPU, same dtype."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def require_finite(output: torch.Tensor, path: str) -> None:
    """Refuses what has no grey level, before it becomes one.

    Raises:
        CheckpointError: names the file that would have been written.
    """
    if not bool(torch.isfinite(output).all()):
        raise CheckpointError(
            f"{path} is not written: the network's output is not finite; did training diverge, or "
            "fp16 overflow (--use_bf16 does not)?"
        )


def save_image(path: str, image: torch.Tensor) -> None:
    """Writes one CHW image in [-1, 1] as an 8-bit PNG, rounded.

    Raises:
        CheckpointError: if a value is not finite.
    """
    require_finite(image, path)
    write_png(path, to_hwc(image_to_bytes(image)))


def make_grid(
    images_uint8: Sequence[NDArray[np.uint8]],
    num_columns: int,
    *,
    padding: int = 2,
    background_255: int = 255,
) -> NDArray[np.uint8]:
    """Images of one shape side by side, row by row, with `padding` pixels around each.

    Args:
        images_uint8: HWC arrays of one shape.
        num_columns: images per row; the last row may be shorter.
        padding: pixels.
        background_255: grey level of padding and missing images.

    Returns:
        HWC uint8, (rows · (H + padding) + padding, columns · (W + padding) + padding, C).
    """
    if not images_uint8 or num_columns < 1 or padding < 0:
        raise ValueError(
            f"{len(images_uint8)} images in {num_columns} columns with padding {padding}: need at "
            "least one image and one column"
        )
    height, width, num_channels = images_uint8[0].shape
    num_columns = min(num_columns, len(images_uint8))
    num_rows = math.ceil(len(images_uint8) / num_columns)
    step_y, step_x = height + padding, width + padding
    grid_shape = (num_rows * step_y + padding, num_columns * step_x + padding, num_channels)
    grid = np.full(grid_shape, background_255, dtype=np.uint8)
    for index, image in enumerate(images_uint8):
        check_uint8(image)
        if image.shape != images_uint8[0].shape:
            raise ValueError(f"image {index} has shape {image.shape}, not {images_uint8[0].shape}")
        row, column = divmod(index, num_columns)
        top, left = row * step_y + padding, column * step_x + padding
        grid[top : top + height, left : left + width] = image
    return grid
