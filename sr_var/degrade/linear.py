"""Degradations that are linear and without noise: pixels of X are weighted sums of those of Y."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_var.degrade.part import Part, Range, Shown, by_image

# ITU-R BT.601, as Pillow's mode L
_LUMA = (0.299, 0.587, 0.114)
# stds of a Gaussian kernel to each side, beyond which less than 1e-4 of it lies
_REACH = 4.0
_FACTORS = Range(1, 256, "whole factors from 1 to 256", is_whole=True)


@dataclass(frozen=True)
class _Reduction(Part):
    range = _FACTORS
    may_be_drawn = False
    is_linear = True

    @property
    def factor(self) -> int:
        """How many times smaller its result is along a side."""
        return int(self.level.low)

    def step(self, shown: Shown, level: Tensor, seeds: Sequence[int]) -> Shown:
        """`apply`; the masks beside the image become means of blocks."""
        sides, factor = shown.image.shape[2:], self.factor
        if any(side % factor for side in sides):
            raise ValueError(
                f"--degradation {self.name}:{factor}: {factor} does not divide the sides of an "
                f"image of {tuple(sides)} pixels"
            )
        extra = tuple(F.avg_pool2d(mask, factor) for mask in shown.extra)
        return Shown(self.apply(shown.image, level, seeds), extra)


class Area(_Reduction):
    """X = means of blocks of f×f pixels; its pseudo-inverse repeats each of them f×f times."""

    name = "area"

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The block means, (N, C, H/f, W/f)."""
        return F.avg_pool2d(image, self.factor)


class Bicubic(_Reduction):
    """X = Y reduced by the cubic kernel of a = −½, as wide as f source pixels allow no aliasing.

    The filter of Pillow's `resize(…, BICUBIC)` (Keys 1981, "Cubic convolution interpolation for
    digital image processing"), without its rounding to whole grey levels.
    """

    name = "bicubic"

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The reduced images, (N, C, H/f, W/f)."""
        size = [side // self.factor for side in image.shape[2:]]
        return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


class Blur(Part):
    """X = Y with each pixel the mean of those around it, weighted by exp(−d²/2σ²).

    The kernel ends 4σ from its middle, and its weights add up to 1; beyond its border the image is
    mirrored at the outermost pixel.
    """

    name = "blur"
    range = Range(0.05, 100, "stds in pixels from 0.05 to 100")
    is_linear = True

    @property
    def grain(self) -> int:
        """The side of a box of the same peak, √(2π) σ."""
        return math.ceil(math.sqrt(2 * math.pi) * self.level.high)

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The blurred images."""
        stds = level if self.level.is_range else level[:1]
        rows, columns = (gaussian_matrices(stds, side).to(image) for side in image.shape[2:])
        return rows[:, None] @ image @ columns[:, None].mT


class Grey(Part):
    """X = 0.299 R + 0.587 G + 0.114 B, in each of the three channels."""

    name = "grey"
    is_linear = True

    def apply(self, image: Tensor, level: Tensor, seeds: Sequence[int]) -> Tensor:
        """The luma, three times (N, 3, H, W)."""
        weights = by_image(torch.tensor(_LUMA), image).transpose(0, 1)
        return (image * weights).sum(dim=1, keepdim=True).expand_as(image)


def gaussian_matrices(std: Tensor, side: int) -> Tensor:
    """The blur of a line of `side` pixels as matrices (N, side, side), float64; stds (N,)."""
    matrices = torch.zeros(len(std), side, side, dtype=torch.float64)
    period = max(2 * side - 2, 1)
    middles = torch.arange(side)
    for matrix, one in zip(matrices, std.tolist(), strict=True):
        reach = max(1, round(_REACH * one))
        offsets = torch.arange(-reach, reach + 1)
        kernel = torch.exp(-(offsets.double() ** 2) / (2 * one**2))
        places = (middles[:, None] + offsets) % period  # mirrored, again and again
        places = torch.minimum(places, period - places) if side > 1 else places
        weights = (kernel / kernel.sum()).expand(side, -1)
        matrix.scatter_add_(1, places, weights)
    return matrices
