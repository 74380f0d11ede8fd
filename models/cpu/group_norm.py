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
    given = num_groups, weight, bias, eps
    if not is_own_norm_faster(x, num_groups):
        return F.group_norm(x.to(weight.dtype), *given).to(x.dtype)
    if torch.is_grad_enabled():
        output: Tensor = _GroupNorm.apply(x, *given)  # type: ignore[no-untyped-call]
    elif has_small_maps(x):
        output = _normalise(x, *given)
    else:
        output = _with_moments(x, *given)[0]
    return output


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        y, mean, rstd = _with_moments(x, num_groups, weight, bias, eps)
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
        grad = grad.contiguous(memory_format=torch.channels_last)
        num_groups, size = mean.shape[1], x.shape[2] * x.shape[3]
        mean, rstd = (_of_channels(v, x.shape[1]) for v in (mean, rstd))  # (N, C)
        sum_g, sum_g_normed = _sums(x, grad, mean, rstd)  # (N, C)

        average_g, average_g_normed = (
            _of_groups(weight * sums, num_groups) / size for sums in (sum_g, sum_g_normed)
        )
        slope = -rstd * rstd * average_g_normed
        offset = -rstd * average_g - slope * mean
        grad_x = _combined(_rows(x), slope, _rows(grad), rstd * weight, offset)
        return _image(grad_x, x), None, sum_g_normed.sum(0), sum_g.sum(0), None


def _with_moments(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised x, and of x mean and 1 / std, (N, groups), by torch."""
    num_images, channels, height, width = x.shape
    of = num_images, channels, height * width, num_groups
    return torch.native_group_norm(x, weight, bias, *of, eps)


def _normalise(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the normalised x, in two passes."""
    rows = _rows(x).to(weight.dtype)
    centred = rows - _of_groups(rows.mean(1), num_groups)[:, None]
    variance = _of_groups((centred * centred).mean(1), num_groups)
    scale = (variance + eps).rsqrt() * weight
    return _image(torch.addcmul(bias, centred, scale[:, None]).to(x.dtype), x)


def _of_groups(values: Tensor, num_groups: int) -> Tensor:
    """Return the mean over each group of (N, C) values, for each of its channels: (N, C)."""
    by_group = values.view(values.shape[0], num_groups, -1)
    return _of_channels(by_group.mean(2), values.shape[1])


def _of_channels(values: Tensor, channels: int) -> Tensor:
    """Return (N, C) of (N, groups), each value for all channels of its group."""
    every = channels // values.shape[1]
    return values[:, :, None].expand(-1, -1, every).reshape(-1, channels).contiguous()


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


def _sums(x: Tensor, grad: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of g and of g·x' over the pixels, each (N, C), for mean and rstd (N, C).

    Of one image they are the gradients of the bias and of the weight of a batch norm in training,
    which torch finds in one pass over rows.
    """
    find, one = torch.ops.aten.native_batch_norm_backward, torch.ones_like(mean[0])
    wanted = [False, True, True]  # of x, weight, bias
    found = [
        find(*pair, one, None, None, *moments, True, 0.0, wanted)
        for pair, moments in zip(
            zip(torch.split(grad, 1), torch.split(x, 1), strict=True),
            zip(mean, rstd, strict=True),
            strict=True,
        )
    ]
    _, of_weight, of_bias = zip(*found, strict=True)
    return torch.stack(of_bias), torch.stack(of_weight)


def _combined(
    rows: Tensor, of_rows: Tensor, grad_rows: Tensor, of_grads: Tensor, offset: Tensor
) -> Tensor:
    """Return offset + of_rows·x + of_grads·g with factors (N, C), in the dtype of x."""
    output, dtype = torch.empty_like(rows), offset.dtype
    a, b, c = (factor[:, None] for factor in (of_rows, of_grads, offset))
    for piece in _pieces(rows):
        of, here = piece[0], output[piece]
        value = here if rows.dtype == dtype else torch.empty_like(here, dtype=dtype)
        torch.addcmul(c[of], rows[piece].to(dtype), a[of], out=value)
        value.addcmul_(grad_rows[piece].to(dtype), b[of])
        if value is not here:
            here.copy_(value)
    return output
