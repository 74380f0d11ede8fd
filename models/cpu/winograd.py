"""Convolutions of 3×3 pixels by Winograd's minimal filtering, F(4×4, 3×3).

Lavin & Gray 2016, arXiv 1509.09308, equation 8: a tile of 4×4 outputs is A'[(G g G') ⊙ (B' d B)]A,
with 36 products for each pair of channels in place of 144. The products are one matrix product for
each of the 36 places; the transforms are sums over whole rows of channels. Tiles are taken in
bands, so that what is in work stays small. The rounding is two to ten times that of the direct sum.
Where it is used is said in `models.cpu.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OUTPUT_SIDE, INPUT_SIDE = 4, 6  # of a tile, pixels
NUM_PLACES = INPUT_SIDE**2
# G of the paper; the other two matrices are written out as sums below.
_FILTER_TRANSFORM = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
# Enough rows for an efficient matrix product, few enough to stay near the processor.
_TILES_OF_A_BAND = 512

_Band = tuple[slice, slice]  # images, rows of tiles
_Transform = Callable[[Sequence[Tensor], Sequence[Tensor]], None]  # along one axis, into the second


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution with padding 1 and stride 1, up to rounding.

    x (N, C, H, W), weight (K, C, 3, 3) and bias (K,) give (N, K, H, W), channels last in memory.
    Gradients of first order are available.
    """
    inputs = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(value.requires_grad for value in inputs):
        output: Tensor = _WinogradConv.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return output
    return _convolve(x, weight, bias)


def winograd_conv2d_replicated(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `winograd_conv2d` with borders replicated, where that has zeros; without gradients."""
    return _convolve(x, weight, bias, "replicate")


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        turned = weight.flip(2, 3).transpose(0, 1)  # (C, K, 3, 3)
        return (
            _convolve(grad, turned, None) if needs_x else None,
            _weight_gradient(x, grad) if needs_weight else None,
            grad.sum((0, 2, 3)) if needs_bias else None,
        )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, border: str = "constant") -> Tensor:
    num_images, _, height, width = x.shape
    rows, columns = -(-height // OUTPUT_SIDE), -(-width // OUTPUT_SIDE)
    # G g G' of each pair of channels
    filters = _filter_matrix(weight) @ weight.permute(2, 3, 0, 1).reshape(9, -1)  # (36, K * C)
    filters = filters.view(NUM_PLACES, *weight.shape[:2]).transpose(1, 2)  # (36, C, K)
    whole_tiles = (num_images, weight.shape[0], rows * OUTPUT_SIDE, columns * OUTPUT_SIDE)
    y = _empty_channels_last(whole_tiles, x)
    for band in _bands(num_images, rows, columns):
        products = torch.bmm(_input_tiles(x, band, border), filters)  # (36, tiles, K)
        _put_output_tiles(products, bias, y.permute(0, 2, 3, 1)[band[0], _pixels(band[1])])
    if whole_tiles[2:] == (height, width):
        return y
    cut = _empty_channels_last((*whole_tiles[:2], height, width), x)
    return cut.copy_(y[:, :, :height, :width])


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient (K, C, 3, 3) of sum(grad * conv(x)) with respect to the weight."""
    num_images, channels, height, width = x.shape
    rows, columns = -(-height // OUTPUT_SIDE), -(-width // OUTPUT_SIDE)
    out_channels = grad.shape[1]
    total = x.new_zeros(NUM_PLACES, out_channels, channels)
    for band in _bands(num_images, rows, columns):
        # A y A' of each tile y
        grads = _transformed_tiles(_framed(grad, band, 0), OUTPUT_SIDE, _transform_gradient)
        total.baddbmm_(grads.transpose(1, 2), _input_tiles(x, band))
    by_place = _filter_matrix(x).T @ total.flatten(1)  # (9, K * C)
    return by_place.view(3, 3, out_channels, channels).permute(2, 3, 0, 1).contiguous()


def _filter_matrix(like: Tensor) -> Tensor:
    once = torch.tensor(_FILTER_TRANSFORM, dtype=like.dtype, device=like.device)  # (6, 3)
    return torch.kron(once, once)  # (36, 9)


def _bands(num_images: int, rows: int, columns: int) -> Iterator[_Band]:
    """Yield slices of all tiles: several images at once, or a few rows of one."""
    images = max(1, _TILES_OF_A_BAND // (rows * columns))
    rows_at_once = rows if images > 1 else max(1, _TILES_OF_A_BAND // columns)
    for first in range(0, num_images, images):
        for row in range(0, rows, rows_at_once):
            last, last_row = min(first + images, num_images), min(row + rows_at_once, rows)
            yield slice(first, last), slice(row, last_row)


def _pixels(rows: slice) -> slice:
    return slice(rows.start * OUTPUT_SIDE, rows.stop * OUTPUT_SIDE)


def _framed(x: Tensor, band: _Band, margin: int, border: str = "constant") -> Tensor:
    """Cut a band out of x (N, C, H, W) with a border around it: (n, rows, columns, C), contiguous.

    The border is of zeros, or with `replicate` of the nearest pixels.
    """
    images, (_, _, height, width) = band[0], x.shape
    top, bottom = band[1].start * OUTPUT_SIDE - margin, band[1].stop * OUTPUT_SIDE + margin
    inside = x[images, :, max(top, 0) : min(bottom, height)]
    right = -width % OUTPUT_SIDE + margin
    frame = (margin, right, max(-top, 0), max(bottom - height, 0))
    return F.pad(inside, frame, mode=border).permute(0, 2, 3, 1).contiguous()


def _input_tiles(x: Tensor, band: _Band, border: str = "constant") -> Tensor:
    """B' d B of each tile of a band: (36, tiles, C)."""
    # (n, 4 * rows + 2, 4 * columns + 2, C)
    return _transformed_tiles(_framed(x, band, 1, border), INPUT_SIDE, _transform_input)


def _transformed_tiles(framed: Tensor, side: int, transform: _Transform) -> Tensor:
    """Transform tiles of `side` pixels, four apart, along both axes: (36, tiles, channels)."""
    num_images, height, width, channels = framed.shape
    rows, columns = height // OUTPUT_SIDE, width // OUTPUT_SIDE
    by_row = framed.new_empty(INPUT_SIDE, num_images, rows, width, channels)
    transform(_every_fourth(framed, 1, side, rows), by_row.unbind(0))
    tiles = framed.new_empty(INPUT_SIDE, INPUT_SIDE, num_images, rows, columns, channels)
    for i in range(INPUT_SIDE):
        transform(_every_fourth(by_row[i], 2, side, columns), tiles[i].unbind(0))
    return tiles.view(NUM_PLACES, -1, channels)


def _put_output_tiles(products: Tensor, bias: Tensor | None, y: Tensor) -> None:
    """Write A' m A + bias of each tile m into y (n, 4 * rows, 4 * columns, K)."""
    num_images, height, width, channels = y.shape
    rows, columns = height // OUTPUT_SIDE, width // OUTPUT_SIDE
    tiles = products.view(INPUT_SIDE, INPUT_SIDE, num_images, rows, columns, channels)
    by_row = products.new_empty(OUTPUT_SIDE, *tiles.shape[1:])
    _transform_output(tiles.unbind(0), None, by_row.unbind(0))
    for i, pixels in enumerate(_every_fourth(y, 1, OUTPUT_SIDE, rows)):
        places = _every_fourth(pixels, 2, OUTPUT_SIDE, columns)
        _transform_output(by_row[i].unbind(0), bias, places)


def _every_fourth(x: Tensor, dim: int, num: int, length: int) -> list[Tensor]:
    """Return `num` views: every fourth row (or column) from the first, second, ... on."""
    span = OUTPUT_SIDE * (length - 1) + 1
    before = (slice(None),) * dim
    return [x[before + (slice(i, i + span, OUTPUT_SIDE),)] for i in range(num)]


def _transform_input(d: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """out = B' d along one axis."""
    torch.add(torch.sub(d[4], d[2], alpha=5), d[0], alpha=4, out=out[0])
    torch.add(torch.sub(d[5], d[3], alpha=5), d[1], alpha=4, out=out[5])
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = torch.sub(d[4], d[2]), torch.sub(d[3], d[1])
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])


def _transform_output(m: Sequence[Tensor], bias: Tensor | None, out: Sequence[Tensor]) -> None:
    """out = A' m + bias along one axis."""
    near_sum, near_difference = m[1] + m[2], m[1] - m[2]
    far_sum, far_difference = m[3] + m[4], m[3] - m[4]
    if bias is not None:
        near_sum += bias
        near_difference += bias
    torch.add(near_sum + m[0], far_sum, out=out[0])
    torch.add(near_difference, far_difference, alpha=2, out=out[1])
    torch.add(near_sum, far_sum, alpha=4, out=out[2])
    torch.add(near_difference + m[5], far_difference, alpha=8, out=out[3])


def _transform_gradient(y: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """out = A y along one axis."""
    out[0].copy_(y[0])
    out[5].copy_(y[3])
    even, odd = y[0] + y[2], y[1] + y[3]
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = torch.add(y[0], y[2], alpha=4), torch.add(y[1], y[3], alpha=4)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])


def _empty_channels_last(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
