"""The small parts: attention, norms, resampling, casts, checkpointing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import (
    GroupNorm32,
    attention,
    avg_pool_nd,
    call_with_checkpoint,
    cast_convolutions,
    conv_nd,
    resize_linear,
    timestep_embedding,
    zero_module,
)
from tests.models.nets import noise


def explicit_attention(qkv: Tensor, num_heads: int, *, use_new_order: bool) -> Tensor:
    """Softmax attention head by head, from the definition, in float64."""
    width = qkv.shape[2] // 3
    head_dim = width // num_heads
    outputs = []
    for head in range(num_heads):
        if use_new_order:
            starts = [part * width + head * head_dim for part in range(3)]
        else:
            starts = [(3 * head + part) * head_dim for part in range(3)]
        query, key, value = (qkv[..., start : start + head_dim].double() for start in starts)
        weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(head_dim), dim=-1)
        outputs.append(weights @ value)
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("use_new_order", [False, True])
@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_attention_equals_an_explicit_softmax(
    use_new_order: bool, num_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    qkv = noise(2, 10, 3 * 12).to(dtype)
    mixed = attention(qkv, num_heads, use_new_order=use_new_order)
    expected = explicit_attention(qkv, num_heads, use_new_order=use_new_order)
    torch.testing.assert_close(mixed.double(), expected, atol=tolerance, rtol=0)


def test_the_two_attention_orders_agree_for_one_head_only() -> None:
    qkv = noise(1, 5, 24)
    legacy, new = (attention(qkv, 1, use_new_order=order) for order in (False, True))
    torch.testing.assert_close(legacy, new)
    legacy, new = (attention(qkv, 2, use_new_order=order) for order in (False, True))
    assert (legacy - new).abs().max() > 0.1


@pytest.mark.parametrize(("channels", "num_groups"), [(128, 32), (48, 16), (20, 4), (33, 1)])
def test_group_norm_finds_groups_for_any_width(channels: int, num_groups: int) -> None:
    norm = GroupNorm32(channels)
    assert norm.num_groups == num_groups
    groups = norm(5 + 3 * noise(2, channels, 8)).reshape(2, num_groups, -1)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(2, num_groups), atol=1e-5, rtol=0)
    variances = groups.var(-1, correction=0)
    torch.testing.assert_close(variances, torch.ones(2, num_groups), atol=1e-4, rtol=0)


def test_group_norm_of_half_precision_has_float32_statistics() -> None:
    x = (300 + noise(1, 32, 64, 64)).to(torch.bfloat16)
    norm = GroupNorm32(32)
    normed = norm(x)
    assert normed.dtype == torch.bfloat16
    expected = F.group_norm(x.double(), 32)
    # Half a unit in the last place of bfloat16 below 4.
    torch.testing.assert_close(normed.double(), expected, atol=2**-7, rtol=0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_have_the_asked_number_of_axes(dims: int) -> None:
    x = noise(2, 3, *[4] * dims)
    assert conv_nd(dims, 3, 5, 3, padding=1)(x).shape == (2, 5, *[4] * dims)
    pooled = avg_pool_nd(dims, 2)(x)
    blocks = x.reshape(2, 3, *[2, 2] * dims)
    torch.testing.assert_close(pooled, blocks.mean(dim=tuple(range(3, 3 + 2 * dims, 2))))


def test_zero_module_zeroes_every_parameter() -> None:
    conv = zero_module(nn.Conv2d(3, 4, 3))
    assert all(not parameter.any() for parameter in conv.parameters())
    assert all(parameter.requires_grad for parameter in conv.parameters())


def test_timestep_embedding_is_cosines_then_sines() -> None:
    embedding = timestep_embedding(torch.tensor([3.0]), 4, max_period=100.0)[0]
    angles = [3.0, 3.0 / 10.0]
    expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
    torch.testing.assert_close(embedding, torch.tensor(expected), atol=1e-6, rtol=0)


def test_timestep_embedding_of_odd_length_ends_in_zero() -> None:
    embedding = timestep_embedding(torch.tensor([1, 7]), 5)
    assert embedding.shape == (2, 5)
    torch.testing.assert_close(embedding[:, :4], timestep_embedding(torch.tensor([1, 7]), 4))
    assert not embedding[:, 4].any()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_linear_resizing_keeps_constants_and_images_of_the_right_size(dims: int) -> None:
    x = noise(1, 2, *[4] * dims)
    assert resize_linear(x, (4,) * dims) is x
    constant = resize_linear(torch.full_like(x, 0.25), (12,) * dims)
    torch.testing.assert_close(constant, torch.full((1, 2, *[12] * dims), 0.25))


def test_linear_resizing_aligns_pixel_areas() -> None:
    row = torch.tensor([[[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.25, 0.75, 1.0]]])
    torch.testing.assert_close(resize_linear(row, (4,)), expected)


def test_casting_convolutions_leaves_everything_else_in_float32() -> None:
    net = nn.Sequential(
        nn.Conv2d(32, 32, 1), GroupNorm32(32), nn.Sequential(nn.Conv1d(2, 2, 1)), nn.Linear(2, 2)
    )
    cast_convolutions(net, torch.bfloat16)
    dtypes = {name: parameter.dtype for name, parameter in net.named_parameters()}
    halves = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert halves == {"0.weight", "0.bias", "2.0.weight", "2.0.bias"}


@pytest.mark.parametrize(
    ("use_checkpoint", "needs_grad", "num_calls"),
    [(False, True, 1), (True, True, 2), (True, False, 1)],
)
def test_checkpointing_recomputes_only_when_asked_and_useful(
    use_checkpoint: bool, needs_grad: bool, num_calls: int
) -> None:
    calls = []

    def square(x: Tensor) -> Tensor:
        calls.append(x)
        return x * x

    x = torch.tensor(3.0, requires_grad=True)
    with torch.set_grad_enabled(needs_grad):
        output = call_with_checkpoint(square, use_checkpoint, x)
    if needs_grad:
        torch.autograd.backward(output)
        assert x.grad is not None
        assert x.grad.item() == 6.0
    assert output.item() == 9.0
    assert len(calls) == num_calls
