"""Attention by plain products: the values and gradients of the fused kernel, piece by piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocks import AttentionBlock
from models.config import UNetConfig
from models.cpu import attention as module
from models.cpu.attention import attention_by_products
from tests.cpus import AVX2, ZEN_4, compute_on
from tests.models.nets import fill, noise

SHAPE = (2, 3, 12, 4)  # images, heads, tokens, width
# all heads at once, some, rows of one, a single row
PIECES = (1 << 20, 300, 30, 1)


def drawn(dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as `models.layers.attention` has them: not contiguous."""
    num_images, heads, length, width = SHAPE
    tokens = noise(num_images, length, 3, heads, width).to(dtype)
    return [part.transpose(1, 2).detach().requires_grad_() for part in tokens.unbind(2)]


@pytest.mark.parametrize("most_kept", [0, 8])
@pytest.mark.parametrize("size", PIECES)
def test_values_and_gradients_are_those_of_the_definition(
    size: int, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", size)
    monkeypatch.setattr(module, "_MOST_KEPT", most_kept)
    inputs = drawn(torch.float64)
    expected = F.scaled_dot_product_attention(*inputs)
    found = attention_by_products(*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    grad = noise(*SHAPE, seed=1).double()
    of_definition = torch.autograd.grad(expected, inputs, grad)
    for own, wanted in zip(torch.autograd.grad(found, inputs, grad), of_definition, strict=True):
        # sums over pieces are in float32
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(attention_by_products(*inputs), found) or most_kept


def test_weights_of_many_tokens_are_not_kept() -> None:
    """What lies between the passes is linear in the tokens."""
    kept: list[Tensor] = []
    query, key, value = (
        part.detach().requires_grad_() for part in noise(3, 1, 1, 200, 4).bfloat16().unbind(0)
    )
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    ):
        attention_by_products(query, key, value)
    assert kept and max(kept) == 200 * 4


def test_half_precision_is_as_near_to_float32_as_its_inputs_allow() -> None:
    """Rounded scores cost about as much as rounded queries and keys."""
    parts = noise(3, 2, 4, 256, 32).unbind(0)
    exact = F.scaled_dot_product_attention(*parts)
    half = [part.bfloat16() for part in parts]
    error = attention_by_products(*half).float() - exact
    fused = F.scaled_dot_product_attention(*half).float() - exact
    assert float(error.norm()) < 1.6 * float(fused.norm()) < 0.01 * float(exact.norm())


def test_block_uses_it_where_the_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = UNetConfig(image_size=16, channel_mult=(1,), model_channels=32, num_heads=2)
    block = fill(AttentionBlock(config, 32)).bfloat16()
    x, results, calls = noise(8, 32, 16, 16).bfloat16(), {}, []

    def counted(*inputs: Tensor) -> Tensor:
        calls.append(inputs)
        return attention_by_products(*inputs)

    monkeypatch.setattr("models.layers.attention_by_products", counted)
    for cpu in (AVX2, ZEN_4):
        compute_on(cpu, monkeypatch)
        with torch.no_grad():
            results[cpu] = block(x).float()
    assert len(calls) == 1
    torch.testing.assert_close(results[ZEN_4], results[AVX2], rtol=0.02, atol=0.02)
    with torch.no_grad():
        block.float()(x.float())
    assert len(calls) == 1
