"""Which kernel computes a layer: torch's own, or where it is faster one that is made for CPUs.

The layers of `models.nn` ask here and know nothing of devices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.cpu.group_norm import group_norm_channels_last, is_channels_last_on_cpu
from models.cpu.winograd import pays, prefers_channels_last, winograd_conv2d

__all__ = ["conv1x1", "conv3x3", "group_norm", "prefers_channels_last"]


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (N, K, H, W) of x (N, C, H, W) with padding 1 and stride 1."""
    if pays(x, weight):
        return winograd_conv2d(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (N, K, H, W) of the single pixels of x (N, C, H, W)."""
    if not is_channels_last_on_cpu(x) or x.dtype != weight.dtype:
        return F.conv2d(x, weight, bias)
    pixels = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)  # pixels lie as rows
    return pixels.permute(0, 3, 1, 2)


def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return `torch.nn.functional.group_norm` of x (N, C, ...)."""
    if torch.is_grad_enabled() and is_channels_last_on_cpu(x):
        return group_norm_channels_last(x, num_groups, weight, bias, eps)
    return F.group_norm(x, num_groups, weight, bias, eps)
