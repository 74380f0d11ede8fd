"""Group norm of images that are channels last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.cpu import group_norm
from models.cpu.group_norm import group_norm_channels_last
from models.cpu.rules import is_channels_last
from models.layers import GroupNorm32, SiLUInPlace
from tests.models.nets import noise

SHAPES = [(3, 16, 5, 7), (2, 64, 40, 40)]  # small maps; large ones
LARGE = 1, 64, 80, 80  # in several pieces


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes the own way, whatever the rule says of its size."""
    monkeypatch.setattr(group_norm, "is_own_norm_faster", lambda _x, _groups: True)


@pytest.mark.parametrize("num_groups", [1, 4, 16])
@pytest.mark.parametrize("shape", [*SHAPES, LARGE], ids=str)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_groups", [1, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_values_without_gradients_are_those_of_torch(
    num_groups: int, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = (noise(*shape) + 3.0).to(dtype).to(memory_format=torch.channels_last)
    weight, bias = noise(shape[1]), noise(shape[1])
    value = group_norm_channels_last(x, num_groups, weight, bias, 1e-5)
    assert value.dtype == dtype and value.is_contiguous(memory_format=torch.channels_last)
    limit = 1e-5 if dtype == torch.float32 else 2**-8
    expected = F.group_norm(x.float(), num_groups, weight, bias, 1e-5)
    torch.testing.assert_close(value.float(), expected, rtol=limit, atol=limit)


def test_gradients_of_another_order_count_as_they_are() -> None:
    x = (noise(2, 64, 40, 40) + 3.0).bfloat16().to(memory_format=torch.channels_last)
    grad, weight = noise(*x.shape, seed=1).bfloat16(), noise(64)
    x.requires_grad_()
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        value = group_norm_channels_last(x, 16, weight, weight, 1e-5)
        found += torch.autograd.grad(value, x, grad.contiguous(memory_format=order))
    assert torch.equal(*found)


def test_half_weights_have_half_gradients() -> None:
    x = noise(2, 64, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    inputs = [one.requires_grad_() for one in (x, noise(64).bfloat16(), noise(64).bfloat16())]
    value = group_norm_channels_last(inputs[0], 16, *inputs[1:], 1e-5)
    gradients = torch.autograd.grad(value.square().sum(), inputs)
    assert {one.dtype for one in gradients} == {torch.bfloat16}


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
