"""The map from a high-res image to what the networks see: pure functions on tensors.

Images are NCHW float in [-1, 1].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def area_downsample(high_res: Tensor, small_size: int) -> Tensor:
    """X = area(Y): means of blocks of (N, C, H, H) pixels; a ValueError if sizes do not divide."""
    factor, rest = divmod(high_res.shape[-1], small_size)
    if rest or high_res.shape[-2] != high_res.shape[-1]:
        raise ValueError(
            f"--small_size {small_size} does not divide the side of the image "
            f"{tuple(high_res.shape[-2:])}; choose sizes with a whole factor"
        )
    return F.avg_pool2d(high_res, factor)  # (N, C, small_size, small_size)


def bilinear_upsample(low_res: Tensor, large_size: int) -> Tensor:
    """The low-res image at the size of the high-res one; half-pixel centres, no antialiasing."""
    return F.interpolate(low_res, (large_size, large_size), mode="bilinear", align_corners=False)
