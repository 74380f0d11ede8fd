"""From a high-res image to the low-res one, and from there to what a network says of it.

Images are NCHW float in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def area_downsample(high_res: Tensor, small_size: int) -> Tensor:
    """X = area(Y): means of blocks of (N, C, H, H) pixels; a ValueError if sizes do not divide."""
    factor, rest = divmod(high_res.shape[-1], small_size)
    if rest or high_res.shape[-2] != high_res.shape[-1]:
        raise ValueError(
            f"a low-res side of {small_size} pixels does not divide the high-res image "
            f"{tuple(high_res.shape[-2:])}; choose sizes with a whole factor"
        )
    return F.avg_pool2d(high_res, factor)  # (N, C, small_size, small_size)


def bilinear_upsample(low_res: Tensor, size: Sequence[int]) -> Tensor:
    """The low-res image at the `size` of the high-res one; half-pixel centres, no antialiasing.

    An image of that size is returned as it is.
    """
    if tuple(low_res.shape[2:]) == tuple(size):
        return low_res
    return F.interpolate(low_res, tuple(size), mode="bilinear", align_corners=False)


def mean_of(net: nn.Module, low_res: Tensor, size: Sequence[int]) -> Tensor:
    """m̂(x), (N, C, *size), of a net (`models.unet`, `models.subpixel`) for x (N, 3, h, w).

    An x of that size already is all that the net is given: any module that maps images to images
    will do.
    """
    is_large = tuple(low_res.shape[2:]) == tuple(size)
    mean: Tensor = net(low_res) if is_large else net(low_res, tuple(size))
    return mean


def variance_of(net: nn.Module, low_res: Tensor, mean: Tensor) -> Tensor:
    """v̂(x, m̂(x)), (N, 3, H, W), of a net for x (N, 3, h, w) and the mean, (N, 3, H, W).

    An x of the size of the mean is given to the net beside it in the channels.
    """
    is_large = low_res.shape == mean.shape
    inputs = (torch.cat([low_res, mean], dim=1),) if is_large else (low_res, mean)
    variance: Tensor = net(*inputs)
    return variance
