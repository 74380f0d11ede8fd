"""Winograd's convolutions: the values and gradients of the direct sum, and where they are used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import UNetConfig
from models.cpu.rules import DIRECT, WINOGRAD, is_in_planes_faster, is_winograd_faster
from models.cpu.winograd import winograd_conv2d, winograd_conv2d_replicated
from models.layers import Conv1x1, Conv3x3, StridedConv, conv_nd
from models.unet import UNetModel
from tests.cpus import AVX2, ZEN_4, compute_on
from tests.models.nets import fill, noise

# images, channels, height, width, output channels: whole tiles, cut tiles, bands of rows, of images
SHAPES = [
    (1, 3, 8, 8, 2),
    (2, 4, 9, 14, 3),
    (1, 2, 100, 100, 2),
    (40, 2, 16, 16, 2),
    (1, 1, 1, 1, 1),
]


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Images, weight, bias."""
    num_images, channels, height, width, out_channels = shape
    x = noise(num_images, channels, height, width).to(dtype)
    weight = noise(out_channels, channels, 3, 3).to(dtype)
    return [x, weight, noise(out_channels).to(dtype)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_are_those_of_the_direct_sum(shape: tuple[int, ...], has_bias: bool) -> None:
    x, weight, bias = drawn(shape)
    given = bias if has_bias else None
    expected = F.conv2d(x, weight, given, padding=1)
    torch.testing.assert_close(winograd_conv2d(x, weight, given), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_replicated_borders_are_those_of_the_direct_sum(
    shape: tuple[int, ...], has_bias: bool
) -> None:
    x, weight, bias = drawn(shape)
    given = bias if has_bias else None
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, given)
    found = winograd_conv2d_replicated(x, weight, given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_direct_sum(shape: tuple[int, ...]) -> None:
    inputs = [value.requires_grad_() for value in drawn(shape)]
    expected = F.conv2d(*inputs, padding=1)
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator())
    found = torch.autograd.grad(winograd_conv2d(*inputs), inputs, grad)
    for value, wanted in zip(found, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-11, atol=1e-10)


def test_inputs_may_lie_in_any_order() -> None:
    x, weight, bias = drawn((2, 4, 9, 14, 3))
    last = x.to(memory_format=torch.channels_last)
    turned = weight.to(memory_format=torch.channels_last)
    assert torch.equal(winograd_conv2d(last, turned, bias), winograd_conv2d(x, weight, bias))


def test_float32_keeps_its_digits() -> None:
    """Measured on two CPUs: 2.3e-6 and 3e-6 of the values.

    The direct sum's, 2.2e-7 and about 7e-7, depend more on the kernels of the CPU.
    """
    x, weight = noise(1, 128, 32, 32), noise(128, 128, 3, 3, seed=1)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert rms(winograd_conv2d(x, weight) - exact) < 4e-6 * rms(exact)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())


def test_wide_layers_on_many_pixels_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_on(AVX2, monkeypatch)
    x, weight = channels_last(noise(1, 96, 32, 32)), torch.zeros(96, 96, 3, 3)
    assert is_winograd_faster(x, weight, WINOGRAD)
    assert not is_winograd_faster(x, weight, DIRECT)
    assert not is_winograd_faster(x.contiguous(), weight, WINOGRAD)
    assert not is_winograd_faster(channels_last(noise(1, 96, 16, 16)), weight, WINOGRAD)
    assert not is_winograd_faster(x, torch.zeros(64, 96, 3, 3), WINOGRAD)
    for other in (torch.float64, torch.bfloat16, "meta"):
        assert not is_winograd_faster(x.to(other), weight.to(other), WINOGRAD)


def test_avx512_uses_it_from_more_products_on(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_on(ZEN_4, monkeypatch)
    weight = torch.zeros(128, 128, 3, 3)
    for images, is_used in ((4, False), (8, True)):
        x = channels_last(noise(images, 128, 32, 32))
        assert is_winograd_faster(x, weight, WINOGRAD) == is_used


def test_small_images_of_many_channels_are_convolved_in_planes() -> None:
    x, weight = channels_last(noise(1, 256, 8, 8)), torch.zeros(256, 256, 3, 3)
    assert is_in_planes_faster(x, weight)
    assert not is_in_planes_faster(x.contiguous(), weight)
    assert not is_in_planes_faster(x, channels_last(weight))
    assert not is_in_planes_faster(channels_last(noise(1, 256, 32, 32)), weight)
    narrow = channels_last(noise(8, 64, 8, 8))
    assert not is_in_planes_faster(narrow, torch.zeros(64, 64, 3, 3))
    assert is_in_planes_faster(narrow[:1], torch.zeros(64, 64, 3, 3))


@pytest.mark.parametrize(("width", "is_fast"), [(48, True), (16, False)])
def test_wide_networks_keep_channels_last_throughout(
    width: int, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = UNetConfig(
        image_size=32,
        model_channels=width,
        channel_mult=(2, 2),
        num_res_blocks=1,
        attention_resolutions=(16,),
    )
    model, seen = fill(UNetModel(config)), []
    for layer in model.modules():
        if isinstance(layer, Conv3x3) and layer.out_channels > 3:
            layer.register_forward_hook(lambda _, x, y: seen.append((x[0], y)))
    x = noise(2, 3, 32, 32)
    fast = model(x)
    for value in (value for pair in seen[1:] for value in pair):
        assert value.is_contiguous(memory_format=torch.channels_last) == is_fast
    monkeypatch.setenv("WINOGRAD", "0")
    torch.testing.assert_close(fast, model(x), rtol=0, atol=1e-5 if is_fast else 0)


def test_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = conv_nd(2, 96, 96, 3, padding=1), channels_last(noise(1, 96, 32, 32))
    compute_on(AVX2, monkeypatch)
    fast = layer(x)
    monkeypatch.setenv("WINOGRAD", "0")
    direct = layer(x)
    assert torch.equal(direct, F.conv2d(x, layer.weight, layer.bias, padding=1))
    assert not torch.equal(fast, direct)
    torch.testing.assert_close(fast, direct, rtol=0, atol=5e-5)


def test_layers_have_the_parameters_of_plain_convolutions() -> None:
    for size, stride, padding, kind in (
        (3, 1, 1, Conv3x3),
        (1, 1, 0, Conv1x1),
        (3, 2, 1, StridedConv),
    ):
        how = {"stride": stride, "padding": padding}
        layer = conv_nd(2, 5, 6, size, **how)
        assert type(layer) is kind
        plain = torch.nn.Conv2d(5, 6, size, **how)
        layer.load_state_dict(plain.state_dict())
        x = noise(2, 5, 7, 6)
        torch.testing.assert_close(layer(x), plain(x))
        last = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(last), plain(x))
    assert type(conv_nd(1, 5, 6, 3, padding=1)) is torch.nn.Conv1d
