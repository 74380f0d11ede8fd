"""Which way a CPU computes a layer: rules by instruction set and shape, and no clock.

The same command computes the same on the same kind of CPU. The bounds were measured
(`python -m benchmarks.convolutions`; the tables are in benchmarks/README.md). A tensor here is an
image (N, C, H, W); on a GPU, and in a network that is compiled or traced, torch's ways are left.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

AUTO, DIRECT, WINOGRAD = KERNELS = "auto", "direct", "winograd"

# Convolutions of narrower networks gain little, and their norms would lose more.
_MIN_WIDTH_CHANNELS_LAST = 64
# Below them the transforms, or those of the filters, cost what Winograd's products save.
_MIN_CHANNELS, _MIN_PIXELS = 48, 1024
# Pixels times pairs of channels. With fewer, the calls of Winograd's many small steps cost what it
# saves where AVX-512 multiplies.
_MIN_PRODUCTS = 1 << 27
# Pairs of channels for each pixel from which on the weights take longer than another order of a
# small image.
_MIN_PAIRS_IN_PLANES = 64
# Weights of a small image take so long that an order of their own pays; it takes as much memory.
_MOST_PIXELS_IN_ORDER, _MOST_WEIGHTS_IN_ORDER = 4096, 1 << 20
# With fewer tokens starting each product costs what it saves.
_MIN_TOKENS = 128
# torch's norm of an image that is channels last is fast with as many channels in a group: a vector.
_VECTOR = 8
# From as many pixels of an image on, torch's norm reads whole rows of channels.
_MIN_PIXELS_BY_ROW = 1024
# Below them, in values or in pixels of an image, the calls of the own norm's steps cost what they
# save: with gradients, and without.
_LARGE, _MANY_PIXELS = 1 << 20, 4096
_NOT_SMALL = 1 << 16


def chosen_kernels(kernels: str) -> tuple[str, str]:
    """Return `DIRECT` or `WINOGRAD` for one of `KERNELS`, and why."""
    return usual_kernels() if kernels == AUTO else (kernels, f"--kernels {kernels}")


def usual_kernels() -> tuple[str, str]:
    """Return the convolutions of this CPU, `DIRECT` or `WINOGRAD`, and why.

    Winograd's filtering saves products for sums. It pays where products are slow: with AVX2, and
    with AVX-512 that is computed in halves, as by Zen 4, the one kind with bf16 instructions but
    none of AVX-VNNI. Where AVX-512 has its full rate, as beside AMX, direct sums are as fast.
    """
    if os.environ.get("WINOGRAD") == "0":
        return DIRECT, "WINOGRAD=0"
    if not torch.cpu._is_avx512_supported():
        return WINOGRAD, "no AVX-512"
    is_halved = torch.cpu._is_avx512_bf16_supported() and not _has("avx_vnni")
    return (WINOGRAD, "AVX-512 in halves") if is_halved else (DIRECT, "AVX-512 at its full rate")


def _has(instruction: str) -> bool:
    """Return whether the CPU has it; True if torch cannot tell."""
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get(instruction, True))


def prefers_channels_last(x: Tensor, width: int | None = None) -> bool:
    """Return whether a network takes x channels last.

    Of a network with norms, `width` are its channels at full size; None: it has no norms.
    """
    if x.device.type != "cpu" or x.ndim != 4 or torch.compiler.is_compiling():
        return False
    is_wide = width is None or width >= _MIN_WIDTH_CHANNELS_LAST
    return is_wide and x.dtype in (torch.float32, torch.bfloat16)


def is_channels_last(x: Tensor) -> bool:
    """Return whether x lies channels last on a CPU, and not the other way as well."""
    return (
        # first, as a network that is traced for any size must not ask for one
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.ndim == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def is_in_planes_faster(x: Tensor, weight: Tensor) -> bool:
    """Return whether x, channels last, is better convolved in planes, as the weight (K, C, …) is.

    So it is where the weights are what takes time.
    """
    pairs = weight.shape[0] * weight.shape[1]
    return (
        is_channels_last(x)
        and weight.is_contiguous()
        and _pixels(x) < _MIN_PIXELS
        and pairs >= _MIN_PAIRS_IN_PLANES * _pixels(x)
    )


def are_weights_worth_ordering(x: Tensor, weight: Tensor) -> bool:
    """Return whether to read them from an order of their own is worth the memory that it takes."""
    return _pixels(x) <= _MOST_PIXELS_IN_ORDER and weight.numel() <= _MOST_WEIGHTS_IN_ORDER


def _pixels(x: Tensor) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3]


def is_winograd_faster(x: Tensor, weight: Tensor, kernels: str) -> bool:
    """Return whether `winograd_conv2d` is the way for x (N, C, H, W) and weight (K, C, 3, 3).

    Only for channels last: a network whose layers change the order all the time would be slower.
    """
    out_channels, channels = weight.shape[:2]
    return (
        is_channels_last(x)
        and x.dtype == weight.dtype == torch.float32
        and _pixels(x) >= _MIN_PIXELS
        and is_wide_enough(channels, out_channels)
        and chosen_kernels(kernels)[0] == WINOGRAD
        and (
            _pixels(x) * channels * out_channels >= _MIN_PRODUCTS
            or not torch.cpu._is_avx512_supported()
        )
    )


def is_wide_enough(channels: int, out_channels: int) -> bool:
    """Return whether so many channels may be worth Winograd's filtering."""
    # products grow with C * K, transforms with C + K
    return channels * out_channels >= _MIN_CHANNELS * (channels + out_channels)


def is_attention_by_products(query: Tensor) -> bool:
    """Return whether `attention_by_products` is the way for queries (N, H, L, D).

    torch's fused attention has fast products of bf16 where there is AMX. Else they take as long as
    those of fp32, while large ones take half as long by AVX-512's instructions for bf16.
    """
    return (
        not torch.compiler.is_compiling()
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and torch.cpu._is_avx512_bf16_supported()
        and not _has("amx_tile")
        # the fused kernel's backward pass is slow for any number of them
        and (query.shape[2] >= _MIN_TOKENS or is_recorded(query))
    )


def is_recorded(x: Tensor) -> bool:
    """Return whether a backward pass through x may follow."""
    return x.requires_grad and torch.is_grad_enabled()


def has_small_maps(x: Tensor) -> bool:
    """Return whether torch's norm of x, channels last, would not read whole rows of channels."""
    return x.shape[2] * x.shape[3] < _MIN_PIXELS_BY_ROW


def is_own_norm_faster(x: Tensor, num_groups: int) -> bool:
    """Return whether `group_norm_channels_last` has a faster way than torch."""
    has_few_channels = x.shape[1] < _VECTOR * num_groups
    is_half = x.dtype == torch.bfloat16
    if torch.is_grad_enabled():
        is_large = x.numel() >= _LARGE or x.shape[2] * x.shape[3] >= _MANY_PIXELS
        return is_large and not has_small_maps(x) and (has_few_channels or is_half)
    if has_small_maps(x):
        return has_few_channels and x.numel() >= _NOT_SMALL
    return is_half
