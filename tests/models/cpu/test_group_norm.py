"""Group norm of images that are channels last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.cpu import group_norm_channels_last, is_channels_last_on_cpu
from models.layers import GroupNorm32, SiLUInPlace
from tests.models.nets import noise


@pytest.mark.parametrize("num_groups", [1, 4, 16])
def test_values_and_gradients_are_those_of_torch(num_groups: int) -> None:
    x = noise(3, 16, 5, 7).double().to(memory_format=torch.channels_last)
    weight, bias = noise(16).double(), noise(16).double()
    inputs = [value.requires_grad_() for value in (x + 3.0, weight, bias)]
    expected = F.group_norm(inputs[0], num_groups, *inputs[1:])
    value = group_norm_channels_last(inputs[0], num_groups, *inputs[1:], 1e-5)
    assert torch.equal(value, expected)
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator())
    found = torch.autograd.grad(value, inputs, grad)
    for own, wanted in zip(found, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-10, atol=1e-10)


def test_layer_has_the_same_gradient_in_both_orders() -> None:
    layer, x = GroupNorm32(64), noise(2, 64, 6, 6)
    gradients = []
    for order in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=order).requires_grad_()
        assert is_channels_last_on_cpu(given) == (order is torch.channels_last)
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
