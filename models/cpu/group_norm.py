"""Group normalisation whose backward pass is fast for images that are channels last, on a CPU.

The values are torch's; its own backward pass walks such images against their order in memory
(benchmarks/README.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_channels_last_on_cpu(x: Tensor) -> bool:
    """Return whether x (N, C, H, W) lies channels last, and not the other way as well."""
    return (
        x.device.type == "cpu"
        and x.ndim == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def group_norm_channels_last(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Return `torch.nn.functional.group_norm`, with gradients of first order.

    Args:
        x: (N, C, H, W), channels last.
        num_groups: a divisor of C.
        weight: (C,).
        bias: (C,).
        eps: added to the variances.
    """
    output: Tensor = _GroupNorm.apply(x, num_groups, weight, bias, eps)  # type: ignore[no-untyped-call]
    return output


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        num_images, channels, height, width = x.shape
        size = height * width
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, num_images, channels, size, num_groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With x' = (x - mean)·rstd the gradient is rstd·(w·g - E[w·g] - x'·E[w·g·x']).

        The averages are over a group, so everything but the last sum is done on (N, C) numbers.
        """
        x, weight, mean, rstd = ctx.saved_tensors
        num_images, channels, height, width = x.shape
        per_group = channels // mean.shape[1]
        mean, rstd = (v.repeat_interleave(per_group, dim=1) for v in (mean, rstd))  # (N, C)
        sum_g, sum_gx = grad.sum((2, 3)), (grad * x).sum((2, 3))  # (N, C)
        sum_g_normed = rstd * (sum_gx - mean * sum_g)  # of g·x'
        grad_weight, grad_bias = sum_g_normed.sum(0), sum_g.sum(0)

        def average(values: Tensor) -> Tensor:
            total = values.view(num_images, -1, per_group).sum(2)
            total = total.repeat_interleave(per_group, dim=1)  # (N, C)
            return torch.div(total, per_group * height * width)

        slope = -rstd * rstd * average(weight * sum_g_normed)
        offset = -rstd * average(weight * sum_g) - slope * mean
        of_x, of_one, of_grad = (v[:, :, None, None] for v in (slope, offset, rstd * weight))
        grad_x = torch.addcmul(of_one, x, of_x).addcmul_(grad, of_grad)
        return grad_x, None, grad_weight, grad_bias, None
