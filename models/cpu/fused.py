"""Convolutions of networks that are not trained, together with what follows them.

torch's library for CPUs (oneDNN) clips values, or adds a tensor, while it writes them, and reads
weights in an order of its own. These functions are private to torch; whether they are there is
tried once. In fp32 results are those of one function after the other; in bf16 a sum is rounded
once, and not twice. Wide layers of large images in fp32 go by Winograd's filtering, where its rule
says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cpu.rules import AUTO, is_winograd_faster, prefers_channels_last
from models.cpu.winograd import winograd_conv2d_replicated

# padding, stride, dilation and groups of every layer
_HOW: tuple[Any, ...] = ([0, 0], [1, 1], [1, 1], 1)
# how near two ways to compute the same are, of values near 1
_NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.05}
# types whose values are several neighbouring ones at once, by their bytes
_WIDE = {8: torch.float64, 16: torch.complex128}


def is_fused(x: Tensor, dtype: torch.dtype, *layers: nn.Module) -> bool:
    """Return whether `convolve` is the way of x (N, C, H, W) through `layers` of that dtype.

    Only without gradients, and where nobody looks on: no hook, and no tracer, which knows torch's
    own functions alone.
    """
    return (
        not torch.is_grad_enabled()
        and prefers_channels_last(x)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
        and has_fused_convolutions(dtype)
    )


@lru_cache
def has_fused_convolutions(dtype: torch.dtype) -> bool:
    """Return whether this torch has them for this CPU, and computes by them what it should."""
    if dtype not in _NEAR:
        return False
    layer = nn.Conv2d(4, 4, 1, device="meta")  # draws no random numbers
    layer.weight = nn.Parameter(torch.linspace(-1, 1, 16, dtype=dtype).view(4, 4, 1, 1))
    layer.bias = nn.Parameter(torch.linspace(-1, 1, 4, dtype=dtype))
    with torch.no_grad():
        x = torch.linspace(-1, 1, 4 * 2 * 3).view(1, 4, 2, 3).to(dtype)
        plain = layer(x)
        try:
            found = convolve(layer, x, has_relu=True), convolve(layer, x, plus=plain)
        except (AttributeError, RuntimeError, TypeError):
            return False
        pairs = zip(found, (plain.relu(), plain + plain), strict=True)
        return all(torch.allclose(*pair, rtol=_NEAR[dtype], atol=_NEAR[dtype]) for pair in pairs)


def convolve(
    conv: nn.Conv2d,
    x: Tensor,
    *,
    has_relu: bool = False,
    plus: Tensor | None = None,
    block: int = 0,
) -> Tensor:
    """Return max(conv(x), 0), or conv(x) + `plus`, channels last. There are no gradients.

    Args:
        conv: of 1×1 pixels, or of 3×3 with replicated borders; of stride 1.
        x: (N, C, H, W) in the dtype of the weights.
        has_relu: without it there is no maximum; where `plus` is None.
        plus: (N, K, H, W) in that dtype.
        block: of as many output channels in a row their mean is taken away; 0: of none.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = _without_means(conv, block)
    output: Tensor
    if conv.kernel_size == (3, 3):
        if is_winograd_faster(x, weight, getattr(conv, "kernels", AUTO)):
            output = winograd_conv2d_replicated(x, weight, bias)
            output = output.relu_() if has_relu else output
            return output if plus is None else output.add_(plus)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    weight, operator = _in_order(conv, weight, x), torch.ops.mkldnn._convolution_pointwise
    if plus is None:
        output = operator(x, weight, bias, *_HOW, "relu" if has_relu else "none", [], "")
    else:
        plus = plus.contiguous(memory_format=torch.channels_last)
        output = operator.binary(x, plus, weight, bias, *_HOW, "add", 1.0, None, [], None)
    return output


def _without_means(conv: nn.Conv2d, block: int) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer whose outputs lack the mean of each `block` of them in a row."""
    if block == 0:
        return conv.weight, conv.bias

    def centred(values: Tensor) -> Tensor:
        by_block = values.reshape(-1, block, *values.shape[1:])
        return (by_block - by_block.mean(1, keepdim=True)).reshape(values.shape)

    return centred(conv.weight), None if conv.bias is None else centred(conv.bias)


@dataclass(frozen=True)
class _Packed:
    """Weights in the library's order, and the bits that they were made of."""

    bits: Tensor
    weight: Tensor


# beside the layers and not in them: files, copies and exports of a network know nothing of it
_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def _in_order(conv: nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    """The weights of a layer in the library's order, kept as long as they are the same bits.

    To compare them takes a fifth of what ordering them does. Versions of tensors would not tell of
    changes through `.data`.
    """
    if not weight.is_contiguous() or weight.nbytes % 8:
        return weight
    bits, kept = weight.view(-1).view(torch.int64), _packed.get(conv)
    if kept is None or kept.weight.dtype != weight.dtype or not torch.equal(kept.bits, bits):
        order = torch.ops.mkldnn._reorder_convolution_weight
        kept = _Packed(bits.clone(), order(weight, *_HOW, list(x.shape)))
        _packed[conv] = kept
    return kept.weight


def to_pixels(channels: Tensor, factor: int) -> Tensor:
    """Return `torch.nn.functional.pixel_shuffle` of an image that is channels last, in planes."""
    num_images, _, height, width = channels.shape
    rows = channels.permute(0, 2, 3, 1).contiguous()  # (N, h, w, C·f·f)
    wide = rows.view(_widest(rows, factor))
    blocks = wide.view(
        num_images, height, width, -1, factor, wide.shape[-1] * factor // rows.shape[-1]
    )
    planes = blocks.permute(0, 3, 1, 4, 2, 5).contiguous()  # (N, C, h, f, w, …)
    return planes.view(rows.dtype).view(num_images, -1, height * factor, width * factor)


def to_channels(image: Tensor, factor: int) -> Tensor:
    """Return `torch.nn.functional.pixel_unshuffle` of an image, channels last."""
    num_images, channels, height, width = image.shape
    rows = image.contiguous()
    wide = rows.view(_widest(rows, factor))
    h, w = height // factor, width // factor
    blocks = wide.view(num_images, channels, h, factor, w, -1)
    pixels = blocks.permute(0, 2, 4, 1, 3, 5).contiguous()  # (N, h, w, C, f, …)
    return pixels.view(image.dtype).view(num_images, h, w, -1).permute(0, 3, 1, 2)


def _widest(rows: Tensor, factor: int) -> torch.dtype:
    """The type whose values are most neighbours in a row of a block of factor × factor pixels."""
    size = next((size for size in (16, 8) if factor * rows.itemsize % size == 0), rows.itemsize)
    return _WIDE.get(size, rows.dtype)
