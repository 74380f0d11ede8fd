"""From a high-res image to the low-res one, and from there to what a network says of it.

Images are NCHW float in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.sizes import Size, SizeLike


class Labelled(NamedTuple):
    """What a class-conditional network is given: low-res images (N, C, h, w) and labels (N,)."""

    low_res: Tensor
    y: Tensor


# of a mean or a variance net: low-res images, with their labels where the net knows classes
NetInput: TypeAlias = Tensor | Labelled


def with_labels(low_res: Tensor, y: Tensor | None) -> NetInput:
    """The images with their labels, if any."""
    return low_res if y is None else Labelled(low_res, y)


def low_res_of(net_input: NetInput) -> Tensor:
    """The images alone."""
    return net_input.low_res if isinstance(net_input, Labelled) else net_input


def image_of(net_input: NetInput, like: Tensor) -> Tensor:
    """The first channels of X, an image of as many as `like` (N, C, H, W) has; not its masks."""
    return low_res_of(net_input)[:, : like.shape[1]]


def labels_of(net_input: NetInput) -> Tensor | None:
    """Their labels; None without."""
    return net_input.y if isinstance(net_input, Labelled) else None


def area_downsample(high_res: Tensor, small_size: SizeLike) -> Tensor:
    """X = area(Y): means of blocks of (N, C, H, W) pixels, of the low-res image's size (h, w).

    Blocks are squares: a ValueError if height and width are not the same whole multiple.
    """
    small = Size.of(small_size)
    factor = Size(*high_res.shape[-2:]).factor_over(small)
    if factor is None:
        raise ValueError(
            f"a low-res side of {small} pixels does not divide the high-res image "
            f"{tuple(high_res.shape[-2:])}; choose sizes with a whole factor, the same in height "
            "and width"
        )
    return F.avg_pool2d(high_res, factor)  # (N, C, h, w)


def bilinear_upsample(low_res: Tensor, size: Sequence[int]) -> Tensor:
    """The low-res image at the `size` of the high-res one; half-pixel centres, no antialiasing.

    An image of that size is returned as it is.
    """
    if tuple(low_res.shape[2:]) == tuple(size):
        return low_res
    return F.interpolate(low_res, tuple(size), mode="bilinear", align_corners=False)


def mean_of(net: nn.Module, net_input: NetInput, size: Sequence[int]) -> Tensor:
    """m̂(x), (N, C, *size), of a net (`models.unet`, `models.subpixel`) for x (N, 3, h, w).

    An x of that size already is all that the net is given: any module that maps images to images
    will do. With labels c it is m̂(x, c), of a net that knows classes.
    """
    low_res, condition = _with_condition(net_input)
    is_large = tuple(low_res.shape[2:]) == tuple(size)
    inputs = (low_res,) if is_large else (low_res, tuple(size))
    mean: Tensor = net(*inputs, **condition)
    return mean


def variance_of(net: nn.Module, net_input: NetInput, mean: Tensor) -> Tensor:
    """v̂(x, m̂(x)), (N, 3, H, W), of a net for x (N, 3, h, w) and the mean, (N, 3, H, W).

    An x of the size of the mean is given to the net beside it in the channels. Labels are as in
    `mean_of`.
    """
    low_res, condition = _with_condition(net_input)
    is_large = low_res.shape[2:] == mean.shape[2:]
    inputs = (torch.cat([low_res, mean], dim=1),) if is_large else (low_res, mean)
    variance: Tensor = net(*inputs, **condition)
    return variance


def _with_condition(net_input: NetInput) -> tuple[Tensor, dict[str, Tensor]]:
    y = labels_of(net_input)
    return low_res_of(net_input), {} if y is None else {"y": y}
