"""Convolutions of networks that are not trained, together with what follows them.

torch's library for CPUs (oneDNN) clips values, or adds a tensor, while it writes them, and reads
weights in an order of its own. These functions are private to torch; whether they are there is
tried once. In fp32 results are those of one function after the other; in bf16 a sum is rounded
once, and not twice. Wide layers of large images in fp32 go by Winograd's filtering, where its rule
says so.

Ordered weights are kept as long as those of the layer are the same. Of weights that may be trained
every bit is compared; of frozen ones (`requires_grad_(False)`) the version that torch counts, and
a few values in case they are written to through `.data`, which it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cpu.rules import (
    AUTO,
    are_weights_worth_ordering,
    is_channels_last,
    is_winograd_faster,
    prefers_channels_last,
)
from models.cpu.winograd import winograd_conv2d_replicated

# of frozen weights so many words of 8 bytes, evenly spread, are compared
_NUM_COMPARED = 64
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
    bias = None if conv.bias is None else _without_means(conv.bias, block)
    output: Tensor
    if conv.kernel_size == (3, 3):
        if is_winograd_faster(x, conv.weight, getattr(conv, "kernels", AUTO)):
            output = winograd_conv2d_replicated(x, _without_means(conv.weight, block), bias)
            output = output.relu_() if has_relu else output
            return output if plus is None else output.add_(plus)
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    how = _how((0, 0))
    weight, operator = _in_order(conv, x, how, block), torch.ops.mkldnn._convolution_pointwise
    if plus is None:
        output = operator(x, weight, bias, *how, "relu" if has_relu else "none", [], "")
    else:
        plus = plus.contiguous(memory_format=torch.channels_last)
        output = operator.binary(x, plus, weight, bias, *how, "add", 1.0, None, [], None)
    return output


def convolve_frozen(conv: nn.Conv2d, x: Tensor) -> Tensor | None:
    """Return `conv.forward(x)` with ordered weights where that is faster, else None.

    So it is of frozen layers, channels last, whose weights are few and are much of the time.
    """
    if (
        conv.weight.requires_grad
        or not is_channels_last(x)
        or not are_weights_worth_ordering(x, conv.weight)
        or x.dtype != conv.weight.dtype
        or not is_fused(x, x.dtype)
    ):
        return None
    how = _how(conv.padding, conv.stride)
    weight, operator = _in_order(conv, x, how), torch.ops.mkldnn._convolution_pointwise
    output: Tensor = operator(x, weight, conv.bias, *how, "none", [], "")
    return output


def _how(padding: Any, stride: Any = (1, 1)) -> tuple[Any, ...]:
    """Padding, stride, dilation and groups of a layer as the library takes them."""
    return list(padding), list(stride), [1, 1], 1


def _without_means(values: Tensor, block: int) -> Tensor:
    """Weight or bias of a layer whose outputs lack the mean of each `block` of them in a row."""
    if block == 0:
        return values
    by_block = values.reshape(-1, block, *values.shape[1:])
    return (by_block - by_block.mean(1, keepdim=True)).reshape(values.shape)


@dataclass(frozen=True)
class _Packed:
    """Weights in the library's order.

    Attributes:
        weight: them.
        made_of: dtype, shape, place and version of what they were made of, and the block.
        bits: those that were compared.
    """

    weight: Tensor
    made_of: tuple[Any, ...]
    bits: Tensor


# beside the layers and not in them: files, copies and exports of a network know nothing of it
_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def _in_order(conv: nn.Conv2d, x: Tensor, how: tuple[Any, ...], block: int = 0) -> Tensor:
    """The weights of a layer, without means of blocks, in the library's order."""
    weight = conv.weight
    if not weight.is_contiguous() or weight.nbytes % 8:
        return _without_means(weight, block)
    bits, place = weight.view(-1).view(torch.int64), (0, 0)
    if not (weight.requires_grad or weight.is_inference()):
        place = weight.data_ptr(), weight._version
        bits = bits[:: max(1, len(bits) // _NUM_COMPARED)]
    made_of, kept = (weight.dtype, weight.shape, *place, block), _packed.get(conv)
    if kept is None or kept.made_of != made_of or not torch.equal(kept.bits, bits):
        order = torch.ops.mkldnn._reorder_convolution_weight
        packed = order(_without_means(weight, block), *how, list(x.shape))
        kept = _packed[conv] = _Packed(packed, made_of, bits.clone())
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
