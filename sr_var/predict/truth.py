"""What the truth says of a prediction: errors, coverage and z², in strips of its rows.

In the unit of the images, float64. docs/theory.md defines the metrics; here the interval is that of
`--level`, and a grey level is a 255th of the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sr_var.degradation import bilinear_upsample
from sr_var.predict.images import LowRes
from sr_var.predict.results import Target
from sr_var.results.moments import block_means
from utils.files.atomic import JsonObject
from utils.metrics import VARIANCE_FLOOR, psnr_of_mse
from utils.process.errors import DataError

# low-res rows at a time
_ROWS = 64
# grey levels, root mean square: rounding makes 0.3, a JPEG file some 2
LARGEST_DIFFERENCE = 4.0


@dataclass(frozen=True)
class Sums:
    """Sums over the values of an image; `bilinear` and `low_res` are 0 where X is no such image."""

    count: int = 0
    square: float = 0.0
    z2: float = 0.0
    covered: float = 0.0
    bilinear: float = 0.0
    low_res: float = 0.0

    @classmethod
    def of(cls, *values: npt.NDArray[Any]) -> Sums:
        """Those of values whose sums stand from `square` on, one a value of the image."""
        return cls(values[0].size, *(float(one.sum()) for one in values))

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def metrics(self, range_: float, *, is_like: bool) -> dict[str, float]:
        """Those of `compare`, at the range of the values."""
        found = {"psnr": psnr_of_mse(self.square / self.count, range_)}
        if is_like:
            found["psnr_bilinear"] = psnr_of_mse(self.bilinear / self.count, range_)
        return {**found, "coverage": self.covered / self.count, "z2": self.z2 / self.count}


def require_size(truth: LowRes, low_res: LowRes, factor: int, path: str) -> None:
    """Refuse (DataError) a truth that is not `factor` times as large as the input."""
    (height, width), (h, w) = truth.pixels.shape[:2], low_res.pixels.shape[:2]
    if (height, width) != (factor * h, factor * w):
        raise DataError(
            f"{path} is {width}×{height}, the truth of an input of {w}×{h} is {factor * w}×"
            f"{factor * h} at the networks' factor of {factor}; give the image that the input was "
            "made from, cut to a multiple of the factor"
        )


def compare(
    target: Target, low_res: LowRes, truth: LowRes, factor: int, *, is_like: bool = True
) -> JsonObject:
    """The metrics of one image, from its arrays.

    `psnr` of the mean and `psnr_bilinear` of the upsampled input, dB at the range of the images;
    `coverage`: share of the values within the interval; `z2`: mean of (y − m)²/v, v at least 1/12
    of a grey level squared; `low_res_rms`: root mean square of area(truth) − input. Of an image
    whose pixels are hidden in parts `hidden` has the first four of these alone. Of an input of
    other channels or another range than the truth (not `is_like`) nothing is said by itself.
    """
    total, hidden = Sums(), Sums()
    for top in range(0, len(low_res.pixels), _ROWS):
        rows = slice(top, min(top + _ROWS, len(low_res.pixels)))
        y = truth.pixels[rows.start * factor : rows.stop * factor].astype(np.float64)
        values = _errors(target, y, rows.start * factor, truth.grey_level)
        of_blocks = 0.0
        if is_like:
            values += (_bilinear_errors(low_res, y, factor, rows),)
            low = block_means(y, low_res.size.width)
            of_blocks = float(((low - low_res.pixels[rows]) ** 2).sum()) * factor**2
        total += replace(Sums.of(*values), low_res=of_blocks)
        if low_res.seen is not None:
            is_hidden = ~low_res.seen[rows].repeat(factor, 0).repeat(factor, 1)
            hidden += Sums.of(*(one[is_hidden] for one in values))
    found: JsonObject = dict(total.metrics(2 * truth.half, is_like=is_like))
    if is_like:
        found["low_res_rms"] = math.sqrt(total.low_res / total.count)
    if hidden.count:
        found["hidden"] = hidden.metrics(2 * truth.half, is_like=is_like)
    return found


def error_rows(target: Target, truth: LowRes) -> Callable[[slice], npt.NDArray[Any]]:
    """What gives rows (r, W) of |mean − truth|, averaged over the channels."""
    mean = target.array("mean")
    return lambda rows: np.abs(mean[rows] - truth.pixels[rows].astype(np.float32)).mean(axis=2)


def _errors(
    target: Target, y: npt.NDArray[Any], start: int, grey_level: float
) -> tuple[npt.NDArray[Any], ...]:
    """(y − m)², (y − m)²/v and whether y is in the interval, of some rows of the truth."""
    rows = slice(start, start + len(y))
    mean, std = (target.array(kind)[rows].astype(np.float64) for kind in ("mean", "std"))
    is_in = (target.array("lower")[rows] <= y) & (y <= target.array("upper")[rows])
    square = (y - mean) ** 2
    return square, square / np.maximum(std**2, VARIANCE_FLOOR * grey_level**2), is_in


def _bilinear_errors(
    low_res: LowRes, y: npt.NDArray[Any], factor: int, rows: slice
) -> npt.NDArray[Any]:
    """(y − b)² of the upsampled input b, of the truth's part above some low-res rows."""
    # as far as a pixel's bilinear neighbours
    first, last = max(0, rows.start - 1), min(len(low_res.pixels), rows.stop + 1)
    around = torch.from_numpy(low_res.pixels[first:last].astype(np.float32)).permute(2, 0, 1)[None]
    size = [factor * side for side in around.shape[2:]]
    upsampled = bilinear_upsample(around, size)[0].permute(1, 2, 0).numpy()
    found: npt.NDArray[Any] = (y - upsampled[(rows.start - first) * factor :][: len(y)]) ** 2
    return found
