"""Attention in bf16 on a CPU by plain matrix products (`models.cpu.rules` says where).

torch's fused kernel multiplies small blocks, for which there are no fast bf16 products but those of
AMX. Here whole heads are multiplied, some at a time, or many rows of one, so that memory is linear
in the number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.cpu.rules import is_recorded

# 4 MiB of bf16: matrices large enough for efficient products, small enough to stay in the cache.
_SCORES_AT_ONCE = 1 << 21
# Weights are kept for the backward pass while they are at most 8/3 as large as q, k and v.
_MOST_KEPT = 8

_Piece = tuple[slice, slice]  # heads, rows of queries


def attention_by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v with gradients of first order.

    All three are (N, H, L, D), and so is the result. Scores are rounded to their dtype before the
    softmax, which the fused kernel does not do (docs/differences.md).
    """
    shape, scale = query.shape, query.shape[-1] ** -0.5
    q, k, v = (part.reshape(-1, *shape[2:]) for part in (query * scale, key, value))
    if is_recorded(query) and shape[2] <= _MOST_KEPT * shape[3]:
        return torch.bmm(_weights(q, k), v).view(shape)
    output: Tensor = _Attention.apply(q, k, v)  # type: ignore[no-untyped-call]
    return output.view(shape)


class _Attention(torch.autograd.Function):
    """Of q, which is scaled, k and v, each (N * H, L, D); the weights are not kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        output = torch.empty_like(value)
        for heads, rows in _pieces(query):
            output[heads, rows] = torch.bmm(_weights(query[heads, rows], key[heads]), value[heads])
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        # sums over pieces of rows
        grad_key, grad_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key, value))
        for heads, rows in _pieces(query):
            q, k, g = query[heads, rows], key[heads], grad[heads, rows]
            weights = _weights(q, k)
            grad_value[heads] += torch.bmm(weights.mT, g)
            of_weights = torch.bmm(g, value[heads].mT)
            scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            grad_query[heads, rows] = torch.bmm(scores, k)
            grad_key[heads] += torch.bmm(scores.mT, q)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    """Return softmax(q k^T), (n, rows, L), its sums in float32."""
    return torch.softmax(torch.bmm(query, key.mT), dim=-1)


def _pieces(query: Tensor) -> Iterator[_Piece]:
    """Yield slices of all scores: several heads at once, or rows of one."""
    num_heads, length = query.shape[:2]
    heads = max(1, _SCORES_AT_ONCE // length**2)
    rows = min(length, max(1, _SCORES_AT_ONCE // length))
    for first in range(0, num_heads, heads):
        for row in range(0, length, rows):
            yield slice(first, first + heads), slice(row, row + rows)
