"""Group normalisation of images that are channels last on a CPU (`models.cpu.rules` says where).

torch's backward pass walks such images against their order in memory, and its forward pass does so
where the images are small. Here rows of channels are read as they lie; statistics and sums are
float32 also where the images are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.cpu.rules import has_small_maps, is_own_norm_faster

# What is in work stays near the processor.
_VALUES_OF_A_PIECE = 1 << 18

_Piece = tuple[slice, slice]  # images, pixels


def group_norm_channels_last(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Return `torch.nn.functional.group_norm` in the dtype of x, with gradients of first order.

    x (N, C, H, W) lies channels last; weight and bias are (C,), float32 or of the dtype of x.
    """
    if is_own_norm_faster(x, num_groups):
        output: Tensor = _GroupNorm.apply(x, num_groups, weight, bias, eps)  # type: ignore[no-untyped-call]
        return output
    return F.group_norm(x.to(weight.dtype), num_groups, weight, bias, eps).to(x.dtype)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        if has_small_maps(x):
            y, mean, rstd = _normalise(x, num_groups, weight, bias, eps)
        else:
            num_images, channels, height, width = x.shape
            y, mean, rstd = torch.native_group_norm(
                x, weight, bias, num_images, channels, height * width, num_groups, eps
            )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With x' = (x - mean)·rstd the gradient is rstd·(w·g - E[w·g] - x'·E[w·g·x']).

        The averages are over a group, so everything but the two passes over the image is done on
        (N, C) numbers.
        """
        x, weight, mean, rstd = ctx.saved_tensors
        rows, grad_rows = _rows(x), _rows(grad)  # (N, H * W, C)
        num_groups, size = mean.shape[1], rows.shape[1]
        mean, rstd = (_of_channels(v, rows.shape[2]) for v in (mean, rstd))  # (N, C)
        sum_g, sum_gx = _sums(rows, grad_rows, weight.dtype)  # (N, C)
        sum_g_normed = rstd * (sum_gx - mean * sum_g)  # of g·x'
        grad_weight, grad_bias = sum_g_normed.sum(0), sum_g.sum(0)

        def average(values: Tensor) -> Tensor:
            return _of_groups(values, num_groups) / size

        slope = -rstd * rstd * average(weight * sum_g_normed)
        offset = -rstd * average(weight * sum_g) - slope * mean
        grad_x = _combined(rows, slope, grad_rows, rstd * weight, offset)
        return _image(grad_x, x), None, grad_weight, grad_bias, None


def _normalise(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised x, mean (N, groups) and 1 / std (N, groups), of x in two passes."""
    rows = _rows(x).to(weight.dtype)
    channels = rows.shape[2]
    mean = _of_groups(rows.mean(1), num_groups)
    centred = rows - mean[:, None]
    variance = _of_groups((centred * centred).mean(1), num_groups)
    rstd = (variance + eps).rsqrt()
    y = torch.addcmul(bias, centred, (rstd * weight)[:, None]).to(x.dtype)
    every = channels // num_groups
    return _image(y, x), mean[:, ::every], rstd[:, ::every]


def _of_groups(values: Tensor, num_groups: int) -> Tensor:
    """Return the mean over each group of (N, C) values, for each of its channels: (N, C)."""
    by_group = values.view(values.shape[0], num_groups, -1)
    return _of_channels(by_group.mean(2), values.shape[1])


def _of_channels(values: Tensor, channels: int) -> Tensor:
    """Return (N, C) of (N, groups), each value for all channels of its group."""
    return values.repeat_interleave(channels // values.shape[1], dim=1)


def _rows(x: Tensor) -> Tensor:
    """Return x (N, C, H, W) as (N, H * W, C), a view where it is channels last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """Return (N, H * W, C) as an image of the shape of `like`, channels last."""
    num_images, channels, height, width = like.shape
    return rows.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def _pieces(rows: Tensor) -> Iterator[_Piece]:
    """Yield slices of all pixels: several images at once, or a few rows of one."""
    num_images, size, channels = rows.shape
    images = max(1, _VALUES_OF_A_PIECE // (size * channels))
    at_once = size if images > 1 else max(1, _VALUES_OF_A_PIECE // channels)
    for first in range(0, num_images, images):
        for pixel in range(0, size, at_once):
            yield slice(first, first + images), slice(pixel, pixel + at_once)


def _sums(rows: Tensor, grad_rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the sums of g and of g·x over the pixels, each (N, C)."""
    sum_g, sum_gx = rows.new_zeros(2, rows.shape[0], rows.shape[2], dtype=dtype)
    for piece in _pieces(rows):
        g = grad_rows[piece].to(dtype)
        sum_g[piece[0]] += g.sum(1)
        sum_gx[piece[0]] += (g * rows[piece]).sum(1)
    return sum_g, sum_gx


def _combined(
    rows: Tensor, of_rows: Tensor, grad_rows: Tensor, of_grads: Tensor, offset: Tensor
) -> Tensor:
    """Return offset + of_rows·x + of_grads·g with factors (N, C), in the dtype of x."""
    output, dtype = torch.empty_like(rows), offset.dtype
    a, b, c = (factor[:, None] for factor in (of_rows, of_grads, offset))
    for piece in _pieces(rows):
        of = piece[0]
        value = torch.addcmul(c[of], rows[piece].to(dtype), a[of])
        output[piece] = value.addcmul_(grad_rows[piece].to(dtype), b[of])
    return output
