"""Group norm of images that are channels last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.cpu.group_norm import group_norm_channels_last
from models.cpu.rules import is_channels_last
from models.layers import GroupNorm32, SiLUInPlace
from tests.models.nets import noise

SHAPES = [(3, 16, 5, 7), (2, 64, 40, 40)]  # small maps; large ones, in several pieces


@pytest.mark.parametrize("num_groups", [1, 4, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_torch(num_groups: int, shape: tuple[int, ...]) -> None:
    x = noise(*shape).double().to(memory_format=torch.channels_last)
    weight, bias = noise(shape[1]).double(), noise(shape[1]).double()
    inputs = [value.requires_grad_() for value in (x + 3.0, weight, bias)]
    expected = F.group_norm(inputs[0], num_groups, *inputs[1:])
    value = group_norm_channels_last(inputs[0], num_groups, *inputs[1:], 1e-5)
    assert value.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator())
    found = torch.autograd.grad(value, inputs, grad)
    for own, wanted in zip(found, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_groups", [1, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_keeps_sums_in_float32(num_groups: int, shape: tuple[int, ...]) -> None:
    x = (noise(*shape) + 3.0).bfloat16().to(memory_format=torch.channels_last)
    weight, bias = noise(shape[1]), noise(shape[1])
    grad = noise(*shape, seed=1).bfloat16()
    results = []
    for given in (x, x.float()):
        inputs = [value.detach().requires_grad_() for value in (given, weight, bias)]
        value = group_norm_channels_last(inputs[0], num_groups, *inputs[1:], 1e-5)
        assert value.dtype == given.dtype
        results.append([value, *torch.autograd.grad(value, inputs, grad.to(given.dtype))])
    for own, wanted in zip(*results, strict=True):
        # a rounding to 8 bits where the result has them; sums of 3200 values have about 60
        limit = 2**-8 if own.dtype != wanted.dtype else 1e-5
        torch.testing.assert_close(own.float(), wanted, rtol=limit, atol=64 * 1e-5 + limit)


def test_layer_has_the_same_gradient_in_both_orders() -> None:
    layer, x = GroupNorm32(64), noise(2, 64, 6, 6)
    gradients = []
    for order in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=order).requires_grad_()
        assert is_channels_last(given) == (order is torch.channels_last)
        (gradient,) = torch.autograd.grad((layer(given) ** 3).sum(), given)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_activation_overwrites_its_input_only_without_gradients() -> None:
    x = noise(2, 8)
    expected = F.silu(x)
    kept = x.clone()
    assert torch.equal(SiLUInPlace()(kept), expected)
    assert torch.equal(kept, x)
    with torch.no_grad():
        assert torch.equal(SiLUInPlace()(kept), expected)
    assert torch.equal(kept, expected)
