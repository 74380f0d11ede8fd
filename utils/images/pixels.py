"""Grey levels to floats in [-1, 1] and back, on tensors, and pictures of tensors in files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.images.pictures import check_uint8, write_picture
from utils.metrics import HALF_RANGE_255, WHITE, Float64Array, Moments
from utils.process.errors import CheckpointError


def bytes_to_image(image_uint8: Tensor) -> Tensor:
    """Grey levels 0..255 to float in [-1, 1]."""
    return image_uint8.to(torch.float32) / HALF_RANGE_255 - 1


def image_to_255(image: Tensor) -> Tensor:
    """Float in [-1, 1] to grey levels, neither rounded nor clipped."""
    return (image + 1) * HALF_RANGE_255


def image_to_bytes(image: Tensor) -> Tensor:
    """Float in [-1, 1] to the nearest grey level, clipped to 0..255; all 256 levels survive."""
    return image_to_255(image).round().clamp(0, WHITE).to(torch.uint8)


def to_hwc(image: torch.Tensor) -> NDArray[Any]:
    """CHW tensor → contiguous HWC array on the CPU, same dtype."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def require_finite(output: torch.Tensor, path: str) -> None:
    """Raise CheckpointError for what has no grey level, before it becomes one in this file."""
    if not bool(torch.isfinite(output).all()):
        raise CheckpointError(
            f"{path} is not written: the network's output is not finite; did training diverge, or "
            "fp16 overflow (--use_bf16 does not)?"
        )


def save_image(path: str, image: torch.Tensor) -> None:
    """Write one CHW image in [-1, 1] as an 8-bit RGB PNG, rounded; see `require_finite`.

    Of other channels than three it shows the mean (`pictured`).
    """
    require_finite(image, path)
    write_picture(path, to_hwc(image_to_bytes(pictured(image))))


def pictured(image: Tensor, axis: int = 0) -> Tensor:
    """Three channels along an axis, to be looked at: those there are, or their mean thrice."""
    if image.shape[axis] == 3:
        return image
    return image.mean(dim=axis, keepdim=True).repeat_interleave(3, dim=axis)


def make_grid(
    images_uint8: Sequence[NDArray[np.uint8]],
    num_columns: int,
    *,
    padding: int = 2,
) -> NDArray[np.uint8]:
    """Images of one shape side by side, row by row, with `padding` pixels around each.

    The images are HWC arrays; the last row may be shorter.

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
    grid = np.full(grid_shape, WHITE, dtype=np.uint8)
    for index, image in enumerate(images_uint8):
        check_uint8(image)
        if image.shape != images_uint8[0].shape:
            raise ValueError(f"image {index} has shape {image.shape}, not {images_uint8[0].shape}")
        row, column = divmod(index, num_columns)
        top, left = row * step_y + padding, column * step_x + padding
        grid[top : top + height, left : left + width] = image
    return grid


# bytes are counted from the middle of their range: |e| <= 128, so that a few fourth powers fit
# into 32 bits, which take half the time of 64
_MIDDLE, PICTURES_AT_A_TIME = 128, 7
# values at a time: few enough for the processor's cache, enough to forget the call of numpy
_STRIP = 1 << 14


class PowerSums:
    """Σ eᵏ, k = 1 … 4, of e = x − 128, for every value of pictures of one shape.

    Args:
        pivot_uint8: a picture near the others, best one of them: moments are taken around it, so
            that they lose nothing to cancellation.
    """

    def __init__(self, pivot_uint8: NDArray[np.uint8]) -> None:
        self._pivot, self._shape = pivot_uint8.reshape(-1), pivot_uint8.shape
        self._sums = np.zeros((4, pivot_uint8.size), np.int64)
        self.count = 0

    def add(self, pictures_uint8: Sequence[NDArray[np.uint8]]) -> None:
        """Count some more samples, each of the pivot's shape."""
        flat = [picture.reshape(-1) for picture in pictures_uint8]
        for start in range(0, len(flat), PICTURES_AT_A_TIME):
            self._add_few(flat[start : start + PICTURES_AT_A_TIME])
        self.count += len(flat)

    def _add_few(self, flat: Sequence[NDArray[np.uint8]]) -> None:
        pictures = np.stack(flat)
        for strip in self._strips():
            # flipping the highest bit turns x into x − 128 of a signed byte
            middled = (pictures[:, strip] ^ np.uint8(_MIDDLE)).view(np.int8)
            e = middled.astype(np.int32)
            square = e * e
            self._sums[0, strip] += np.add.reduce(e, dtype=np.int32)
            self._sums[1, strip] += np.add.reduce(square, dtype=np.int32)
            # products and their sum at once
            self._sums[2, strip] += np.einsum("ij,ij->j", e, square)
            self._sums[3, strip] += np.einsum("ij,ij->j", square, square)

    def moments(self) -> Moments:
        """The sums of central powers: the binomial expansion of Σ (d − d̄)ᵏ."""
        fields = np.empty((4, self._pivot.size))
        for strip in self._strips():
            s1, s2, s3, s4 = self._around_pivot(strip)
            mean = s1 / self.count
            square = mean * mean
            fields[0, strip] = self._pivot[strip] + mean
            # equal samples cancel up to rounding only
            fields[1, strip] = np.maximum(s2 - mean * s1, 0)
            fields[2, strip] = s3 - 3 * mean * s2 + 2 * square * s1
            m4 = s4 - 4 * mean * s3 + 6 * square * s2 - 3 * square * mean * s1
            fields[3, strip] = np.maximum(m4, 0)
        return Moments(self.count, *(field.reshape(self._shape) for field in fields))

    def _around_pivot(self, strip: slice) -> list[Float64Array]:
        """Σ dᵏ of d = x − pivot, whole numbers below 2⁵³: of the size of the samples' spread."""
        p = self._pivot[strip].astype(np.int64) - _MIDDLE
        shifted = []
        for k in range(1, 5):
            # Σ (e − p)ᵏ expanded, from the highest power of p downwards
            total: NDArray[np.int64] | int = self.count
            for j in range(1, k + 1):
                total = math.comb(k, j) * self._sums[j - 1, strip] - p * total
            shifted.append(np.asarray(total, np.float64))
        return shifted

    def _strips(self) -> Iterator[slice]:
        for start in range(0, self._pivot.size, _STRIP):
            yield slice(start, min(start + _STRIP, self._pivot.size))
