"""Sub-pixel networks that are not trained: fused convolutions, packed weights, ends at low-res."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.nets import fill, noise
from models.config import RES_BLOCKS, SubpixelConfig
from models.cpu import fused
from models.subpixel import SubpixelDenoiser, SubpixelModel, SubpixelVarianceModel
from tests.cpus import ZEN_4, compute_on

SIGMAS = (0.05, 0.3, 2.0)


@pytest.fixture(autouse=True)
def _has_fused_convolutions() -> Iterator[None]:
    if not fused.has_fused_convolutions(torch.float32):
        pytest.skip("this torch has no fused convolutions for this CPU")
    yield
    fused.has_fused_convolutions.cache_clear()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every fused convolution."""
    found: list[int] = []
    inner = fused._in_order

    def counted(*given: Any) -> Tensor:
        found.append(1)
        return inner(*given)

    monkeypatch.setattr(fused, "_in_order", counted)
    return found


def _config(**more: Any) -> SubpixelConfig:
    return SubpixelConfig(**{"factor": 4, "model_channels": 8, "num_res_blocks": 2, **more})


def _image(*shape: int, seed: int = 0) -> Tensor:
    return noise(*shape, seed=seed).clamp(-1, 1)


def _mean_call(net: SubpixelModel, sides: tuple[int, int] = (6, 5)) -> Callable[[], Tensor]:
    classes = net.config.num_classes
    y = None if classes is None else torch.arange(2) % classes
    x = _image(2, net.config.x_channels, *sides)
    return lambda: net(x, y=y)


def _mean_net(**more: Any) -> SubpixelModel:
    net: SubpixelModel = fill(SubpixelModel(_config(**more))).eval()
    return net


def _plain(call: Callable[[], Tensor]) -> Tensor:
    """By torch's layers, as where gradients may be wanted."""
    with torch.enable_grad():
        return call().detach()


@torch.no_grad()
def _check(call: Callable[[], Tensor], calls: list[int], at_least: int = 6) -> None:
    expected = _plain(call)
    assert not calls
    found = call()
    assert len(calls) >= at_least
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sides", [(1, 1), (1, 7), (6, 5)])
@pytest.mark.parametrize("res_block", RES_BLOCKS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_mean_nets_are_the_same(
    calls: list[int], res_block: str, num_classes: int | None, sides: tuple[int, int]
) -> None:
    net = _mean_net(res_block=res_block, num_classes=num_classes, consistent=True)
    _check(_mean_call(net, sides), calls)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("consistent", [False, True])
def test_mean_nets_of_every_factor_are_the_same(
    calls: list[int], factor: int, channels: int, consistent: bool
) -> None:
    shape = {"in_channels": channels, "out_channels": channels}
    net = _mean_net(factor=factor, consistent=consistent, **shape)
    call = _mean_call(net)
    _check(call, calls)
    if consistent:
        with torch.no_grad():
            low_res = _image(2, net.config.x_channels, 6, 5)
            torch.testing.assert_close(F.avg_pool2d(call(), factor), low_res, atol=1e-6, rtol=0)


def test_baselines_and_nets_of_whole_images_are_the_same(calls: list[int]) -> None:
    _check(_mean_call(_mean_net(out_channels=6)), calls)
    for masks in (False, True):
        calls.clear()
        extra = 3 * 16 + 16 * masks
        net = _mean_net(shows_whole=True, masks_whole=masks, extra_channels=extra)
        _check(_mean_call(net), calls)


@pytest.mark.parametrize("last_layer_type", ["softplus", "exp"])
def test_variance_nets_are_the_same(calls: list[int], last_layer_type: str) -> None:
    net = fill(SubpixelVarianceModel(_config(last_layer_type=last_layer_type))).eval()
    low_res, mean = _image(2, 3, 6, 5), _image(2, 3, 24, 20, seed=1)
    _check(lambda: net(low_res, mean), calls)


@pytest.mark.parametrize("res_block", RES_BLOCKS)
def test_denoisers_and_their_stds_are_the_same(calls: list[int], res_block: str) -> None:
    net = fill(SubpixelDenoiser(_config(res_block=res_block), SIGMAS)).eval()
    x, t, low_res = _image(3, 3, 24, 20), torch.arange(3), _image(3, 3, 6, 5, seed=1)
    _check(lambda: net(x, t, low_res), calls, at_least=12)
    calls.clear()
    _check(lambda: net.condition(low_res, (24, 20))["std"], calls)


def test_bf16_is_as_near_to_fp32_as_by_layers_in_turn(calls: list[int]) -> None:
    if not fused.has_fused_convolutions(torch.bfloat16):
        pytest.skip("this CPU has no fused convolutions of bf16")
    net = _mean_net(model_channels=32, num_res_blocks=4)
    call = _mean_call(net, (16, 16))
    exact = _plain(call)
    net.convert_torso(torch.bfloat16)
    plain = _plain(call)
    with torch.no_grad():
        found = call()
    assert calls
    errors = [(one - exact).square().mean().sqrt() for one in (found, plain)]
    assert 0 < errors[0] < 1.05 * errors[1]


def test_wide_nets_go_by_winograd_where_its_rule_says_so(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_on(ZEN_4, monkeypatch)
    filtered: list[int] = []
    inner = fused.winograd_conv2d_replicated

    def counted(*given: Any) -> Tensor:
        filtered.append(1)
        return inner(*given)

    monkeypatch.setattr(fused, "winograd_conv2d_replicated", counted)
    net = _mean_net(model_channels=96, num_res_blocks=1, factor=2)
    call = _mean_call(net, (96, 92))  # 2 · 96 · 92 pixels, two images: 2^27 products
    with torch.no_grad():
        expected, found = _plain(call), call()
    assert len(filtered) == 3  # both of the block, and the end of the body
    assert len(calls) == 3  # head, smooth base, last layer
    assert found.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    filtered.clear()
    assert net.use_kernels("direct") == ("direct", "--kernels direct")
    with torch.no_grad():
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)
    assert not filtered


def test_nets_in_training_compute_by_layers_that_have_gradients(calls: list[int]) -> None:
    net = _mean_net().train()
    _mean_call(net)().square().mean().backward()  # type: ignore[no-untyped-call]
    assert not calls
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("how", ["in place", "data", "load_state_dict", "replaced"])
@torch.no_grad()
def test_changed_weights_count(calls: list[int], how: str, is_frozen: bool) -> None:
    net, other = _mean_net().requires_grad_(not is_frozen), _mean_net()
    call = _mean_call(net)
    before = call()
    for parameter in other.parameters():
        parameter.mul_(1.5)
    _change(net, other, how)
    after = call()
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, _plain(call), atol=1e-5, rtol=1e-5)


def _change(net: nn.Module, other: nn.Module, how: str) -> None:
    """Give a net the weights of another, which are 1.5 times its own."""
    for name, parameter in net.named_parameters():
        if how == "in place":
            parameter.mul_(1.5)
        elif how == "data":  # unseen by versions of tensors
            parameter.data.mul_(1.5)
        elif how == "replaced":
            parameter.data = other.get_parameter(name).data.clone()
    if how == "load_state_dict":
        net.load_state_dict(other.state_dict())


@torch.no_grad()
def test_copies_and_files_know_nothing_of_packed_weights(calls: list[int]) -> None:
    net = _mean_net()
    names, size = list(net.state_dict()), len(_pickled(net))
    expected = _mean_call(net)()
    assert calls
    assert list(net.state_dict()) == names
    assert len(_pickled(net)) == size
    for twin in (copy.deepcopy(net), torch.load(io.BytesIO(_pickled(net)), weights_only=False)):
        assert torch.equal(_mean_call(twin)(), expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(_mean_call(twin)(), expected)
    assert torch.equal(_mean_call(net)(), expected)


def _pickled(net: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(net, file)
    return file.getvalue()


@torch.no_grad()
def test_packed_weights_end_with_their_layer() -> None:
    net = _mean_net()
    _mean_call(net)()
    assert set(net.modules()) & set(fused._packed.keys())
    kept = len(fused._packed)
    del net
    assert len(fused._packed) < kept


def test_exported_and_compiled_networks_have_torchs_layers(calls: list[int]) -> None:
    net = _mean_net(consistent=True)
    x = _image(2, 3, 6, 5)
    expected = _plain(lambda: net(x))
    with torch.inference_mode():
        net(x)  # packs
    calls.clear()
    with torch.no_grad():
        program = torch.export.export(net, (x,))
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected, atol=1e-5, rtol=1e-5)
    assert not calls
    assert "mkldnn" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])
def test_a_torch_without_them_computes_by_layers(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    tried: list[int] = []

    def refuse(*_: Any) -> Tensor:
        tried.append(1)
        raise error("no such function")

    monkeypatch.setattr(fused, "_in_order", refuse)
    fused.has_fused_convolutions.cache_clear()
    call = _mean_call(_mean_net(consistent=True))
    with torch.no_grad():
        assert torch.equal(call(), _plain(call))
        assert not fused.has_fused_convolutions(torch.float32)
    assert len(tried) == 1


def test_wrong_results_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_in_order", lambda conv, *_: 2 * conv.weight)
    fused.has_fused_convolutions.cache_clear()
    assert not fused.has_fused_convolutions(torch.float32)


@torch.no_grad()
def test_who_looks_on_finds_torchs_layers(calls: list[int]) -> None:
    call = _mean_call(_mean_net())
    with torch.autocast("cpu", torch.bfloat16):
        call()
    with torch.backends.mkldnn.flags(enabled=False):
        call()
    assert not calls


@pytest.mark.parametrize("name", ["head", "body.0.conv2", "body_end", "out.0"])
@torch.no_grad()
def test_hooks_see_what_leaves_their_layer(name: str) -> None:
    net = _mean_net()
    expected, seen = _mean_call(net)(), []
    with net.get_submodule(name).register_forward_hook(lambda *given: seen.append(given[2])):
        torch.testing.assert_close(_mean_call(net)(), expected, atol=1e-5, rtol=1e-5)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_pixels_are_torchs(dtype: torch.dtype, factor: int) -> None:
    channels = noise(2, 3 * factor**2, 5, 4).to(dtype).contiguous(memory_format=torch.channels_last)
    found = fused.to_pixels(channels, factor)
    assert found.is_contiguous()
    assert torch.equal(found, F.pixel_shuffle(channels, factor))
    back = fused.to_channels(found, factor)
    assert back.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(back, channels)
