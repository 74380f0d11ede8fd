"""Small parts that networks are made of: layers by dimension, norms, attention, casts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.cpu.attention import attention_by_products
from models.cpu.fused import convolve_frozen
from models.cpu.group_norm import group_norm_channels_last
from models.cpu.rules import (
    AUTO,
    chosen_kernels,
    is_attention_by_products,
    is_channels_last,
    is_in_planes_faster,
    is_wide_enough,
    is_winograd_faster,
)
from models.cpu.winograd import winograd_conv2d

_MAX_GROUPS = 32

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_CONVS: tuple[type[nn.Conv1d], type[nn.Conv2d], type[nn.Conv3d]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AVG_POOLS: tuple[type[nn.AvgPool1d], type[nn.AvgPool2d], type[nn.AvgPool3d]] = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)
_GLOBAL_AVG_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_LINEAR_MODES = ("linear", "bilinear", "trilinear")
_OTHER_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "gelu": nn.GELU,
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "lrelu": partial(nn.LeakyReLU, 0.1),
    }
)


class GroupNorm32(nn.GroupNorm):
    """Group normalisation (Wu & He 2018, equation 1) in the precision of its parameters.

    There are 32 groups where 32 divides the channels, else the greatest common divisor of both,
    so that any width works.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(_MAX_GROUPS, channels), channels)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input (N, C, ...) in the dtype of `input`."""
        rest = self.num_groups, self.weight, self.bias, self.eps
        if is_channels_last(input):
            return group_norm_channels_last(input, *rest)
        # A torso in half precision leaves this layer's parameters in float32, and statistics over
        # thousands of pixels need it. On a CPU torch's norm does so by itself.
        is_mixed = input.device.type == "cpu" and input.dtype == torch.bfloat16
        x = input if is_mixed else input.to(self.weight.dtype)
        return F.group_norm(x, *rest).to(input.dtype)


class SiLUInPlace(nn.SiLU):
    """x·sigmoid(x) of a tensor that nobody else holds: without gradients it is overwritten.

    A network's largest activations then exist once and not twice.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the activations in the shape of `input`, whose values are lost."""
        return F.silu(input, inplace=not torch.is_grad_enabled())


def activation(name: str, *, keeps_input: bool = False) -> nn.Module:
    """The activation of `UNetConfig.act`, elementwise, without parameters.

    silu: x·sigmoid(x); gelu: x·Φ(x), Φ the normal distribution function (both arXiv 1606.08415);
    relu: max(x, 0); relu6: min(max(x, 0), 6); lrelu: x, and 0.1 x below 0. Without gradients silu
    overwrites its input, unless it `keeps_input`.
    """
    if name == "silu":
        return nn.SiLU() if keeps_input else SiLUInPlace()
    return _OTHER_ACTIVATIONS[name]()


class Conv3x3(nn.Conv2d):
    """A convolution of 3×3 pixels, padding 1 and stride 1.

    Attributes:
        kernels: one of `models.cpu.rules.KERNELS`.
    """

    kernels = AUTO

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H, W) for `input` (N, in_channels, H, W)."""
        if is_winograd_faster(input, self.weight, self.kernels):
            return winograd_conv2d(input, self.weight, self.bias)
        output = convolve_frozen(self, input)
        if output is not None:
            return output
        if is_in_planes_faster(input, self.weight):
            output = F.conv2d(input.contiguous(), self.weight, self.bias, padding=1)
            return output.contiguous(memory_format=torch.channels_last)
        return F.conv2d(input, self.weight, self.bias, padding=1)


def use_kernels(network: nn.Module, kernels: str) -> tuple[str, str] | None:
    """Have the 3×3 convolutions of a network in float32 computed so on a CPU.

    Args:
        kernels: one of `models.cpu.rules.KERNELS`.

    Returns:
        `DIRECT` or `WINOGRAD`, and why; None for a network that has no layer to choose for.
    """
    layers = [module for module in network.modules() if isinstance(module, Conv3x3)]
    for layer in layers:
        layer.kernels = kernels
    if not any(
        layer.weight.dtype == torch.float32
        and is_wide_enough(layer.in_channels, layer.out_channels)
        for layer in layers
    ):
        return None
    return chosen_kernels(kernels)


class Conv1x1(nn.Conv2d):
    """A convolution of single pixels."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H, W) for `input` (N, in_channels, H, W)."""
        output = convolve_frozen(self, input)
        if output is not None:
            return output
        if not is_channels_last(input) or input.dtype != self.weight.dtype:
            return F.conv2d(input, self.weight, self.bias)
        rows = input.permute(0, 2, 3, 1)  # pixels lie as rows
        return F.linear(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class StridedConv(nn.Conv2d):
    """A convolution of any stride."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, H', W') for `input` (N, in_channels, H, W)."""
        output = convolve_frozen(self, input)
        return super().forward(input) if output is None else output


def conv_nd(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int = 0,
) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """Return a convolution over `dims` spatial axes (1, 2 or 3)."""
    conv: Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d] = _CONVS[dims - 1]
    if (dims, kernel_size, stride, padding) == (2, 3, 1, 1):
        conv = Conv3x3
    elif (dims, kernel_size, stride, padding) == (2, 1, 1, 0):
        conv = Conv1x1
    elif dims == 2:
        conv = StridedConv
    return conv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)


def avg_pool_nd(dims: int, kernel_size: int | tuple[int, ...]) -> nn.Module:
    """Return an average pooling over `dims` spatial axes whose stride is its kernel size."""
    pool: Callable[..., nn.Module] = _AVG_POOLS[dims - 1]
    return pool(kernel_size=kernel_size, stride=kernel_size)


def global_avg_pool_nd(dims: int) -> nn.Module:
    """Return the average over all places of `dims` spatial axes, which stay as axes of length 1."""
    pool: Callable[..., nn.Module] = _GLOBAL_AVG_POOLS[dims - 1]
    return pool(1)


def resize_linear(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return `image` interpolated (bi-, tri-)linearly to the spatial `size`, pixel areas aligned.

    Args:
        image: (N, C, *spatial) with one to three spatial axes.
        size: the new spatial shape.

    Returns:
        (N, C, *size); `image` itself if it already has that size.
    """
    if tuple(image.shape[2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode=_LINEAR_MODES[len(size) - 1], align_corners=False)


def repeat_blocks(low_res: Tensor, factor: int) -> Tensor:
    """Return (N, C, f·h, f·w): every pixel of `low_res` (N, C, h, w) as a block of f×f."""
    return F.interpolate(low_res, scale_factor=float(factor), mode="nearest")


def project(image: Tensor, low_res: Tensor) -> Tensor:
    """Return the image nearest to `image`, in squared error, whose block means are `low_res`.

    m + repeat(x − area(m)): the orthogonal projection onto {m : area(m) = x}. E[Y | X = x] lies in
    that set, since the area mean is linear, so that no estimate of it gets worse
    (docs/theory.md, eq. 51).

    Args:
        image: m, (N, C, f·h, f·w).
        low_res: x, (N, C, h, w).

    Raises:
        ValueError: the sides of `image` are not a multiple, the same for both, of those of
            `low_res`.
    """
    factor = image.shape[-1] // low_res.shape[-1]
    if [factor * side for side in low_res.shape[2:]] != list(image.shape[2:]):
        raise ValueError(
            f"an image of {tuple(image.shape[2:])} has no block means of {tuple(low_res.shape[2:])}"
        )
    return image + repeat_blocks(low_res - F.avg_pool2d(image, factor), factor)


def in_channels_of(image: Tensor, num_channels: int) -> Tensor:
    """Return an image with as many channels, (N, num_channels, h, w): it, or the mean of its own.

    Args:
        image: (N, C', h, w).
        num_channels: where it is C', the image is returned as it is.
    """
    if image.shape[1] == num_channels:
        return image
    return image.mean(dim=1, keepdim=True).expand(-1, num_channels, -1, -1)


def fill(image: Tensor, seen: Tensor, mask: Tensor, low_res: Tensor) -> Tensor:
    """Return the image nearest to `image` that shows what is seen and has the given block means.

    What a block's sum lacks is shared evenly among its hidden pixels (docs/theory.md, eq. 72), as
    `project` does of all; a block without any keeps what is seen.

    Args:
        image: (N, C, f·h, f·w).
        seen: of the same shape; it counts where the mask is 1.
        mask: (N, 1, f·h, f·w) of 0 and 1.
        low_res: the block means, (N, C, h, w).
    """
    factor = image.shape[-1] // low_res.shape[-1]
    image = torch.where(mask == 1, seen, image)
    hidden = F.avg_pool2d(1 - mask, factor)  # share of a block
    lack = (low_res - F.avg_pool2d(image, factor)) / hidden.clamp(min=1 / factor**2)
    return image + (1 - mask) * repeat_blocks(lack, factor)


def smooth_base(low_res: Tensor, factor: int) -> Tensor:
    """Return the bilinear upsampling of `low_res`, projected onto its block means (`project`).

    Args:
        low_res: (N, C, h, w).
        factor: f ≥ 1.

    Returns:
        (N, C, f·h, f·w).
    """
    height, width = low_res.shape[2:]
    return project(resize_linear(low_res, (factor * height, factor * width)), low_res)


def last_layer(output: Tensor, kind: str) -> Tensor:
    """Return `output` as positive numbers by exp, sigmoid (below 1) or softplus; as it is by none.

    Args:
        output: of any shape.
        kind: one of `models.config.LAST_LAYER_TYPES`.
    """
    if kind == "exp":
        return output.exp()
    if kind == "sigmoid":
        return output.sigmoid()
    return F.softplus(output) if kind == "softplus" else output


def zero_module(module: ModuleT) -> ModuleT:
    """Set the parameters of a freshly built module to zero and return it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def require_labels(y: Tensor | None, num_classes: int | None, batch_size: int) -> None:
    """Refuse labels, or their embeddings, that are missing or not one per image.

    A net without classes (`num_classes` None) may be given None.

    Raises:
        ValueError: says what is wanted.
    """
    if y is None and num_classes is not None:
        raise ValueError(f"y is missing: a net of {num_classes} classes needs a label per image")
    if y is not None and y.shape[0] != batch_size:
        raise ValueError(f"y of shape {tuple(y.shape)}: give one label per image, {batch_size}")


def check_labels(y: Tensor, num_classes: int | None) -> None:
    """Refuse what is no vector of labels in [0, num_classes); a net without classes has None.

    The range is checked for labels on the CPU only: elsewhere it would wait for the device.

    Raises:
        ValueError: says what is wanted.
    """
    if num_classes is None:
        raise ValueError("y was given to a net without classes: set num_classes, or leave y out")
    if y.ndim != 1 or y.is_floating_point():
        raise ValueError(f"y {tuple(y.shape)} of {y.dtype}: give a vector of integer labels")
    if y.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = y[(y < 0) | (y >= num_classes)]
        if wrong.numel() > 0:
            raise ValueError(f"label {int(wrong[0])}: the net knows 0 to {num_classes - 1}")


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Return sinusoidal embeddings of time.

    With h = dim // 2 and f_k = max_period^(-k/h) the row of t is
    (cos f_0 t, ..., cos f_{h-1} t, sin f_0 t, ..., sin f_{h-1} t), padded with a zero if `dim` is
    odd: Vaswani et al. 2017, section 3.5, with the cosines first.

    Args:
        timesteps: (N,), integer or fractional.
        dim: length of an embedding.
        max_period: longest period, in units of 2 pi timesteps.

    Returns:
        (N, dim), float32, in [-1, 1].
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(max_period) * exponents / half)
    angles = timesteps.float()[:, None] * frequencies  # (N, half)
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)  # (N, 2 * half)
    return F.pad(embedding, (0, dim % 2))  # (N, dim)


def attention(qkv: Tensor, num_heads: int, *, use_new_order: bool) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v per head (Vaswani et al. 2017, equation 1).

    Args:
        qkv: (N, L, 3 * C), projections of L tokens with C = num_heads * D channels.
        num_heads: number of heads H.
        use_new_order: the last axis reads (q/k/v, head, D); otherwise (head, q/k/v, D).

    Returns:
        (N, L, C), the heads side by side.
    """
    batch, length, width = qkv.shape
    head_dim = width // (3 * num_heads)
    if use_new_order:
        parts = qkv.view(batch, length, 3, num_heads, head_dim).unbind(2)
    else:
        parts = qkv.view(batch, length, num_heads, 3, head_dim).unbind(3)
    query, key, value = (part.transpose(1, 2) for part in parts)  # each (N, H, L, D)
    by_products = is_attention_by_products(query)
    mix = attention_by_products if by_products else F.scaled_dot_product_attention
    mixed = mix(query, key, value)  # (N, H, L, D)
    return mixed.transpose(1, 2).reshape(batch, length, num_heads * head_dim)


def project_tokens(conv: nn.Conv1d, tokens: Tensor) -> Tensor:
    """Apply a 1-wide convolution to tokens that are rows: (..., C) to (..., C')."""
    return F.linear(tokens, conv.weight.squeeze(-1), conv.bias)


def call_with_checkpoint(
    function: Callable[..., Tensor], use_checkpoint: bool, *inputs: Tensor | None
) -> Tensor:
    """Return `function(*inputs)`; with `use_checkpoint` its activations are not kept.

    They are recomputed in the backward pass, under the autocast state and with the random numbers
    of the forward pass. Without gradients there is nothing to recompute.
    """
    if use_checkpoint and torch.is_grad_enabled():
        output: Tensor = checkpoint(function, *inputs, use_reentrant=False)
        return output
    return function(*inputs)


def cast_all_but_head(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast, in place, every convolution of `network` but those of its head `out`.

    A network within it keeps its own head likewise.
    """
    for name, module in network.named_modules():
        if isinstance(module, _CONVS) and "out" not in name.split("."):
            module.to(dtype)


def cast_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast, in place, the parameters of every convolution below `module`, and nothing else."""
    for child in module.modules():
        if isinstance(child, _CONVS):
            child.to(dtype)
