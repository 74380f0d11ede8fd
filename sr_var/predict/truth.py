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
    """Sums over the values of an image."""

    count: int = 0
    square: float = 0.0
    bilinear: float = 0.0
    z2: float = 0.0
    covered: float = 0.0
    low_res: float = 0.0

    @classmethod
    def of(cls, *values: npt.NDArray[Any]) -> Sums:
        """Those of values whose sums stand from `square` to `covered`, one a value of the image."""
        square, bilinear, z2, covered = (float(one.sum()) for one in values)
        return cls(values[0].size, square, bilinear, z2, covered)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def metrics(self, range_: float) -> dict[str, float]:
        """Those of `compare`, at the range of the values."""
        return {
            "psnr": psnr_of_mse(self.square / self.count, range_),
            "psnr_bilinear": psnr_of_mse(self.bilinear / self.count, range_),
            "coverage": self.covered / self.count,
            "z2": self.z2 / self.count,
        }


def require_size(truth: LowRes, low_res: LowRes, factor: int, path: str) -> None:
    """Refuse (DataError) a truth that is not `factor` times as large as the input."""
    (height, width), (h, w) = truth.pixels.shape[:2], low_res.pixels.shape[:2]
    if (height, width) != (factor * h, factor * w):
        raise DataError(
            f"{path} is {width}×{height}, the truth of an input of {w}×{h} is {factor * w}×"
            f"{factor * h} at the networks' factor of {factor}; give the image that the input was "
            "made from, cut to a multiple of the factor"
        )


def compare(target: Target, low_res: LowRes, truth: LowRes, factor: int) -> JsonObject:
    """The metrics of one image, from its arrays.

    `psnr` of the mean and `psnr_bilinear` of the upsampled input, dB at the range of the images;
    `coverage`: share of the values within the interval; `z2`: mean of (y − m)²/v, v at least 1/12
    of a grey level squared; `low_res_rms`: root mean square of area(truth) − input. Of an image
    whose pixels are hidden in parts `hidden` has the first four of these alone.
    """
    total, hidden = Sums(), Sums()
    for top in range(0, len(low_res.pixels), _ROWS):
        strip, of_hidden = _strip(target, low_res, truth, factor, top)
        total, hidden = total + strip, hidden + of_hidden
    found: JsonObject = dict(total.metrics(2 * low_res.half))
    found["low_res_rms"] = math.sqrt(total.low_res / total.count)
    if hidden.count:
        found["hidden"] = hidden.metrics(2 * low_res.half)
    return found


def error_rows(target: Target, truth: LowRes) -> Callable[[slice], npt.NDArray[Any]]:
    """What gives rows (r, W) of |mean − truth|, averaged over the channels."""
    mean = target.array("mean")
    return lambda rows: np.abs(mean[rows] - truth.pixels[rows].astype(np.float32)).mean(axis=2)


def _strip(
    target: Target, low_res: LowRes, truth: LowRes, factor: int, top: int
) -> tuple[Sums, Sums]:
    """The sums over the results of some low-res rows, and over those that a mask hides."""
    bottom = min(top + _ROWS, len(low_res.pixels))
    rows = slice(top * factor, bottom * factor)
    y = truth.pixels[rows].astype(np.float64)
    mean, std = (target.array(kind)[rows].astype(np.float64) for kind in ("mean", "std"))
    is_in = (target.array("lower")[rows] <= y) & (y <= target.array("upper")[rows])
    square = (y - mean) ** 2
    # as far as a pixel's bilinear neighbours
    first, last = max(0, top - 1), min(len(low_res.pixels), bottom + 1)
    around = torch.from_numpy(low_res.pixels[first:last].astype(np.float32)).permute(2, 0, 1)[None]
    size = [factor * side for side in around.shape[2:]]
    upsampled = bilinear_upsample(around, size)[0].permute(1, 2, 0).numpy()
    bilinear = upsampled[(top - first) * factor :][: len(y)]
    low = block_means(y, low_res.pixels.shape[1])
    floor = VARIANCE_FLOOR * low_res.grey_level**2
    values = square, (y - bilinear) ** 2, square / np.maximum(std**2, floor), is_in
    of_blocks = float(((low - low_res.pixels[top:bottom]) ** 2).sum()) * factor**2
    whole = replace(Sums.of(*values), low_res=of_blocks)
    if low_res.seen is None:
        return whole, Sums()
    is_hidden = ~low_res.seen[top:bottom].repeat(factor, 0).repeat(factor, 1)
    return whole, Sums.of(*(one[is_hidden] for one in values))
