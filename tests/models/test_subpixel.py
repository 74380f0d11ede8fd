"""The sub-pixel network: what a new one returns, consistency, windows, precision, names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.config import SubpixelConfig
from models.layers import project, smooth_base
from models.subpixel import (
    SubpixelBase,
    SubpixelDenoiser,
    SubpixelModel,
    SubpixelVarianceModel,
    noise_of,
)


def _image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _filled(net: SubpixelBase) -> SubpixelBase:
    """The net with weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return net.eval()


def _mean_net(factor: int = 4, **more: object) -> SubpixelModel:
    config = SubpixelConfig(factor=factor, model_channels=8, num_res_blocks=2, **more)  # type: ignore[arg-type]
    net = SubpixelModel(config)
    _filled(net)
    return net


def _variance_net(factor: int = 4, last_layer_type: str = "softplus") -> SubpixelVarianceModel:
    config = SubpixelConfig(
        factor=factor, model_channels=8, num_res_blocks=2, last_layer_type=last_layer_type
    )
    net = SubpixelVarianceModel(config)
    _filled(net)
    return net


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_smooth_base_keeps_the_block_means(factor: int) -> None:
    low_res = _image(2, 3, 5, 7)
    base = smooth_base(low_res, factor)
    assert base.shape == (2, 3, 5 * factor, 7 * factor)
    torch.testing.assert_close(F.avg_pool2d(base, factor), low_res, atol=1e-6, rtol=0)


def test_projection_is_the_nearest_image_with_these_block_means() -> None:
    image, low_res = _image(1, 3, 8, 8), _image(1, 3, 2, 2, seed=1)
    found = project(image, low_res)
    # any other such image differs from it by something of block mean 0, to which image - found,
    # constant on blocks, is orthogonal
    other = project(_image(1, 3, 8, 8, seed=2), low_res)
    assert torch.sum((image - found) * (other - found)).abs() < 1e-5
    assert torch.sum((image - found) ** 2) < torch.sum((image - other) ** 2)
    torch.testing.assert_close(project(found, low_res), found)


def test_projection_lowers_the_squared_error_by_what_it_takes_away() -> None:
    """docs/theory.md, eq. 52, for any target with these block means."""
    low_res = _image(2, 3, 4, 5)
    truth = project(_image(2, 3, 16, 20, seed=1), low_res)
    image = _image(2, 3, 16, 20, seed=2)
    before, after = ((one - truth).square().mean() for one in (image, project(image, low_res)))
    missed = (F.avg_pool2d(image, 4) - low_res).square().mean()
    torch.testing.assert_close(after, before - missed)


def test_projection_refuses_sizes_without_blocks() -> None:
    with pytest.raises(ValueError, match=r"\(8, 9\)"):
        project(_image(1, 3, 8, 9), _image(1, 3, 2, 2))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_new_mean_net_is_the_smooth_base(factor: int) -> None:
    net = SubpixelModel(SubpixelConfig(factor=factor, model_channels=8))
    low_res = _image(2, 3, 6, 5)
    torch.testing.assert_close(net(low_res), smooth_base(low_res, factor))


def test_new_variance_net_is_that_of_zero() -> None:
    net = SubpixelVarianceModel(SubpixelConfig(factor=2, last_layer_type="softplus"))
    variance = net(_image(1, 3, 4, 4), _image(1, 3, 8, 8))
    torch.testing.assert_close(variance, torch.full((1, 3, 8, 8), 2.0).log())


def test_consistent_mean_has_the_low_res_image_as_block_means() -> None:
    low_res = _image(2, 3, 6, 5)
    free, kept = _mean_net(), _mean_net(consistent=True)
    assert (F.avg_pool2d(free(low_res), 4) - low_res).abs().max() > 0.01
    torch.testing.assert_close(F.avg_pool2d(kept(low_res), 4), low_res, atol=1e-6, rtol=0)


def test_output_depends_on_a_window_of_the_input() -> None:
    mean_net, variance_net = _mean_net(), _variance_net()
    low_res = _image(1, 3, 32, 32)
    reach = mean_net.reach
    changed = low_res.clone()
    changed[..., 16, 16] += 1.0
    rows = (mean_net(changed) - mean_net(low_res)).abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert rows.min() // 4 == 16 - reach and rows.max() // 4 == 16 + reach
    mean = mean_net(low_res)
    cut = slice(4, 28)
    tile = mean_net(low_res[..., cut, cut])
    inner = slice(4 * reach, -4 * reach)
    whole = mean[..., 16:112, 16:112]
    torch.testing.assert_close(tile[..., inner, inner], whole[..., inner, inner])
    variance = variance_net(low_res, mean)[..., 16:112, 16:112]
    tile = variance_net(low_res[..., cut, cut], whole)
    torch.testing.assert_close(tile[..., inner, inner], variance[..., inner, inner])


def test_every_parameter_has_a_gradient() -> None:
    mean_net, variance_net = _mean_net(consistent=True), _variance_net()
    low_res = _image(2, 3, 6, 5)
    mean = mean_net(low_res)
    (mean.square().mean() + variance_net(low_res, mean).mean()).backward()  # type: ignore[no-untyped-call]
    for net in (mean_net, variance_net):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


SIGMAS = (1e-3, 0.05, 0.1, 2.0, 1e4)


def _denoiser(factor: int = 4, sigmas: tuple[float, ...] = SIGMAS) -> SubpixelDenoiser:
    config = SubpixelConfig(factor=factor, model_channels=8, num_res_blocks=1)
    return SubpixelDenoiser(config, sigmas)


def test_noise_is_that_of_the_chain_down_to_its_first_step() -> None:
    (found,) = noise_of([1 / (1 + 1e-12)])
    assert found == pytest.approx(1e-6, rel=1e-3)
    assert noise_of([0.5, 1e-8]) == pytest.approx([1.0, 1e4])


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_new_denoiser_is_the_wiener_filter_around_the_smooth_base(factor: int) -> None:
    """docs/theory.md, eq. 53, with the std of 0.1 that a new net tells itself."""
    net = _denoiser(factor)
    low_res, sigma = _image(5, 3, 4, 6), torch.tensor(SIGMAS).view(-1, 1, 1, 1)
    base = smooth_base(low_res, factor)
    details = 0.1 * torch.randn(base.shape, generator=torch.Generator().manual_seed(0))
    clean = project(base + details, low_res)
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    share = 1 / (1 + sigma**2)
    x_t = share.sqrt() * clean + (1 - share).sqrt() * noise
    left = clean + sigma * noise - base
    expected = project(base + 0.01 / (0.01 + sigma**2) * left, low_res)
    found = net(x_t, torch.arange(5), low_res)
    # float32 leaves 1 − share of the smallest noise two digits
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(F.avg_pool2d(found, factor), low_res, atol=1e-5, rtol=0)


def test_denoiser_keeps_what_has_no_noise_and_forgets_what_has_no_signal() -> None:
    net = _denoiser(sigmas=(1e-6, 1e4))
    _filled(net)
    low_res = _image(1, 3, 6, 5)
    clean = project(_image(1, 3, 24, 20, seed=1), low_res)
    torch.testing.assert_close(net(clean, torch.tensor([0]), low_res), clean, atol=1e-4, rtol=0)
    noises = [torch.randn(1, 3, 24, 20, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    one, other = (net(noise, torch.tensor([1]), low_res) for noise in noises)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert (one - smooth_base(low_res, 4)).abs().max() > 0.01


def test_std_of_the_denoiser_is_told_by_the_low_res_image_alone() -> None:
    """Else a sample that is smooth by chance would tell the next step that it has no details."""
    net = _denoiser()
    _filled(net)
    for parameter in net.out.parameters():
        torch.nn.init.zeros_(parameter)  # F = 0: what is left is linear in the noisy image
    low_res, t = _image(1, 3, 4, 4), torch.tensor([2])
    one, other = _image(1, 3, 16, 16, seed=1), _image(1, 3, 16, 16, seed=2)
    middle = net(0.5 * one + 0.5 * other, t, low_res)
    mean = 0.5 * net(one, t, low_res) + 0.5 * net(other, t, low_res)
    torch.testing.assert_close(middle, mean, atol=1e-5, rtol=0)
    assert net.std._run(low_res).abs().max() > 0.1


def test_std_that_the_denoiser_tells_itself_is_bounded() -> None:
    net = _denoiser()
    _filled(net)
    with torch.no_grad():
        net.std.out[0].bias.fill_(1e4)
    assert net(_image(5, 3, 16, 16), torch.arange(5), _image(5, 3, 4, 4)).isfinite().all()


def test_denoiser_takes_the_noise_of_each_row_and_learns() -> None:
    net = _denoiser()
    _filled(net)
    x_t, low_res, t = _image(3, 3, 16, 24), _image(3, 3, 4, 6, seed=1), torch.tensor([3, 0, 2])
    together = net(x_t, t, low_res)
    torch.testing.assert_close(net(x_t, t, **net.condition(low_res, (16, 24))), together)
    for i in range(3):
        alone = net(x_t[i : i + 1], t[i : i + 1], low_res[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)
    together.square().mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not any("sigma" in name for name in net.state_dict())


def test_denoiser_refuses_what_it_does_not_know() -> None:
    net, low_res = _denoiser(), _image(1, 3, 4, 4)
    with pytest.raises(TypeError, match="rescale_timesteps"):
        net(_image(1, 3, 16, 16), torch.tensor([0.5]), low_res)
    with pytest.raises(ValueError, match=r"\(16, 12\).*4 times"):
        net(_image(1, 3, 16, 12), torch.tensor([0]), low_res)
    with pytest.raises(ValueError, match="no classes"):
        net.condition(low_res, (16, 16), torch.tensor([0]))


def test_half_precision_casts_all_but_the_last_convolution() -> None:
    net, low_res = _mean_net(), _image(1, 3, 6, 5)
    exact = net(low_res)
    net.convert_torso(torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in net.named_parameters()}
    assert {kind for name, kind in kinds.items() if name.startswith("out.")} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name[:3] != "out"} == {torch.bfloat16}
    rounded = net(low_res)
    assert rounded.dtype == torch.float32
    scale = (exact - smooth_base(low_res, 4)).square().mean().sqrt()
    assert (rounded - exact).square().mean().sqrt() < 0.02 * scale


def test_names_are_those_of_checkpoints() -> None:
    net = SubpixelModel(SubpixelConfig(factor=3, model_channels=8, num_res_blocks=1))
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes == {
        "head.weight": (8, 3, 3, 3),
        "head.bias": (8,),
        "body.0.conv1.weight": (8, 8, 3, 3),
        "body.0.conv1.bias": (8,),
        "body.0.conv2.weight": (8, 8, 3, 3),
        "body.0.conv2.bias": (8,),
        "body_end.weight": (8, 8, 3, 3),
        "body_end.bias": (8,),
        "out.0.weight": (27, 8, 3, 3),
        "out.0.bias": (27,),
    }
    variance = SubpixelVarianceModel(SubpixelConfig(factor=3, model_channels=8))
    assert variance.state_dict()["head.weight"].shape == (8, 30, 3, 3)


def test_baseline_output_comes_without_the_base() -> None:
    net = SubpixelModel(SubpixelConfig(factor=2, out_channels=6))
    assert net(_image(1, 3, 4, 4)).abs().max() == 0
    assert net(_image(1, 3, 4, 4)).shape == (1, 6, 8, 8)


def test_size_that_the_factor_does_not_make_is_refused() -> None:
    net = _mean_net()
    assert net(_image(1, 3, 4, 4), (16, 16)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"\(12, 12\)"):
        net(_image(1, 3, 4, 4), (12, 12))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("factor", 0),
        ("model_channels", 0),
        ("num_res_blocks", 0),
        ("num_res_blocks", 10**18),
        ("model_channels", 2**21),
        ("last_layer_type", "relu"),
    ],
)
def test_values_that_make_no_net_are_refused(field: str, value: object) -> None:
    flags: dict[str, object] = {"factor": 4, field: value}
    with pytest.raises(ValueError, match=str(value)):
        SubpixelConfig(**flags)  # type: ignore[arg-type]


def test_kinds_of_blocks_are_told_apart_and_no_other_is_taken() -> None:
    nets = [_mean_net(res_block=kind, num_classes=2) for kind in ("conv3x3", "pointwise")]
    shapes = [{key: tuple(v.shape) for key, v in net.state_dict().items()} for net in nets]
    assert shapes[0].keys() == shapes[1].keys()
    assert shapes[1]["body.0.conv1.weight"] == (32, 8, 1, 1)
    for one, other in ((0, 1), (1, 0)):
        hint = nets[one].explain_mismatch(shapes[other])
        kinds = [nets[i].config.res_block for i in (other, one)]
        assert f"--res_block {kinds[0]}, here {kinds[1]}" in hint and "--model" not in hint
    label = torch.tensor([0, 1])
    assert not torch.equal(*nets[1](_image(1, 3, 5, 5).expand(2, -1, -1, -1), y=label))
    with pytest.raises(ValueError, match="--res_block 'conv5x5': choose one of conv3x3, pointwise"):
        _mean_net(res_block="conv5x5")
