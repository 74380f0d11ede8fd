"""U-Nets that are frozen: weights of small images in the library's order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.config import UNetConfig
from models.cpu import fused
from models.cpu.rules import are_weights_worth_ordering
from models.layers import conv_nd
from models.unet import UNetModel
from tests.models.nets import fill, noise


@pytest.fixture(autouse=True)
def _has_fused_convolutions() -> None:
    fused.has_fused_convolutions(torch.bfloat16)  # tried now, as trying asks for weights, too
    if not fused.has_fused_convolutions(torch.float32):
        pytest.skip("this torch has no fused convolutions for this CPU")


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by a layer whenever its weights are asked for."""
    found: list[Any] = []
    inner = fused._in_order

    def counted(conv: Any, *given: Any) -> Tensor:
        found.append(conv)
        return inner(conv, *given)

    monkeypatch.setattr(fused, "_in_order", counted)
    return found


def _net() -> UNetModel:
    config = UNetConfig(image_size=16, model_channels=64, channel_mult=(1, 2), num_res_blocks=1)
    net: UNetModel = fill(UNetModel(config)).eval()
    return net


@torch.no_grad()
def test_frozen_nets_are_the_same(ordered: list[Any]) -> None:
    net, x = _net(), noise(2, 3, 16, 12)
    expected = net(x)
    assert not ordered
    found = net.requires_grad_(False)(x)
    kernels = {layer.kernel_size + layer.stride for layer in ordered}
    assert kernels == {(3, 3, 1, 1), (3, 3, 2, 2), (1, 1, 1, 1)}
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_frozen_nets_in_bf16_are_as_near_to_fp32(ordered: list[Any]) -> None:
    if not fused.has_fused_convolutions(torch.bfloat16):
        pytest.skip("this CPU has no fused convolutions of bf16")
    net, x = _net(), noise(2, 3, 16, 12)
    exact = net(x)
    net.convert_torso(torch.bfloat16)
    plain = net(x)
    assert not ordered
    found = net.requires_grad_(False)(x)
    assert ordered
    errors = [float((one - exact).square().mean().sqrt()) for one in (found, plain)]
    assert 0 < errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("how", ["in place", "data", "replaced"])
@torch.no_grad()
def test_changed_weights_of_frozen_layers_count(ordered: list[Any], how: str) -> None:
    layer = conv_nd(2, 64, 64, 3, padding=1).requires_grad_(False)
    x = noise(1, 64, 6, 6).to(memory_format=torch.channels_last)
    before = layer(x)
    if how == "in place":
        layer.weight[3, 2, 1, 1] += 5  # one value
    elif how == "data":
        layer.weight.data.mul_(1.5)
    else:
        layer.weight.data = noise(64, 64, 3, 3)
    after = layer(x)
    assert len(ordered) == 2
    assert (after - before).abs().max() > 0.1
    plain = torch.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(after, plain, rtol=1e-5, atol=1e-4)


def test_gradients_of_the_input_go_through_frozen_layers(ordered: list[Any]) -> None:
    layer = conv_nd(2, 64, 64, 3, padding=1).requires_grad_(False)
    x = noise(1, 64, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None and not ordered


@torch.no_grad()
def test_nets_that_are_trained_keep_no_ordered_weights(ordered: list[Any]) -> None:
    _net()(noise(2, 3, 16, 12))
    assert not ordered


def test_weights_that_would_take_much_memory_are_left() -> None:
    small, large = torch.empty(1, 64, 64, 64), torch.empty(2, 64, 64, 64)
    few, many = torch.empty(320, 320, 3, 3), torch.empty(384, 384, 3, 3)
    assert are_weights_worth_ordering(small, few)
    assert not are_weights_worth_ordering(large, few)
    assert not are_weights_worth_ordering(small, many)
