"""The four uses of the U-Net: options, conditions, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocks import AttentionBlock, Downsample, Upsample
from models.unet import (
    SuperResModel,
    TimeConditionedUNet,
    UNetBase,
    UNetModel,
    VarianceModel,
)
from tests.models.nets import fill, noise, small_config
from utils.debug_util import count_parameters

TIMESTEPS = torch.tensor([3, 500])


def attention_blocks(model: UNetBase) -> list[AttentionBlock]:
    return [module for module in model.modules() if isinstance(module, AttentionBlock)]


@pytest.mark.parametrize("net_class", [UNetModel, VarianceModel])
def test_a_new_time_free_net_returns_zero(net_class: type[UNetBase]) -> None:
    x = noise(1, 3 * net_class.num_input_images, 16, 16)
    assert not net_class(small_config())(x).any()


def test_a_new_mean_net_that_predicts_the_residual_is_the_identity() -> None:
    x = noise(2, 3, 16, 16)
    assert torch.equal(UNetModel(small_config(predict_residual=True))(x), x)


def test_predicting_the_residual_adds_the_input_and_nothing_else() -> None:
    x = noise(1, 3, 16, 16)
    plain = fill(UNetModel(small_config()))
    residual = fill(UNetModel(small_config(predict_residual=True)))
    torch.testing.assert_close(residual(x), x + plain(x))


def test_a_new_upsampler_that_predicts_the_residual_returns_the_upsampled_image() -> None:
    config = small_config(predict_residual=True, out_channels=6)
    x, low_res = noise(2, 3, 16, 16), noise(2, 3, 4, 4, seed=1)
    output = SuperResModel(config)(x, TIMESTEPS, low_res)
    assert torch.equal(output[:, :3], F.interpolate(low_res, (16, 16), mode="bilinear"))
    assert not output[:, 3:].any()


@pytest.mark.parametrize(
    ("last_layer_type", "function"),
    [
        ("none", lambda v: v),
        ("exp", torch.exp),
        ("sigmoid", lambda v: 1 / (1 + torch.exp(-v))),
        ("softplus", lambda v: torch.log1p(torch.exp(v))),
    ],
)
def test_last_layers_are_their_functions_and_have_no_parameters(
    last_layer_type: str, function: Any
) -> None:
    x = noise(1, 6, 16, 16)
    plain = fill(VarianceModel(small_config()))
    model = VarianceModel(small_config(last_layer_type=last_layer_type))
    model.load_state_dict(plain.state_dict())
    output = model(x)
    torch.testing.assert_close(output, function(plain(x)))
    assert plain(x).min() < 0
    assert (output.min() > 0) == (last_layer_type != "none")
    assert last_layer_type != "sigmoid" or output.max() < 1


@pytest.mark.parametrize("width", [20, 48])
def test_widths_that_32_does_not_divide_work(width: int) -> None:
    model = fill(UNetModel(small_config(model_channels=width)))
    assert model(noise(1, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize("is_updown", [False, True])
@pytest.mark.parametrize("conv_resample", [False, True])
@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes_work(dims: int, conv_resample: bool, is_updown: bool) -> None:
    config = small_config(
        dims=dims,
        image_size=8,
        attention_resolutions=(4,),
        conv_resample=conv_resample,
        resblock_updown=is_updown,
    )
    shape = (2, 3, 5, 8, 8) if dims == 3 else (2, 3, 8)
    assert fill(UNetModel(config))(noise(*shape)).shape == shape
    low_res = noise(2, 3, *[side // 2 for side in shape[2:]])
    assert fill(SuperResModel(config))(noise(*shape), TIMESTEPS, low_res).shape == shape


def test_a_fractional_multiplier_halves_the_width() -> None:
    model = fill(UNetModel(small_config(channel_mult=(0.5, 1))))
    assert model.get_parameter("input_blocks.0.0.weight").shape == (16, 3, 3, 3)
    assert model.get_parameter("out.2.weight").shape == (3, 16, 3, 3)
    assert model(noise(1, 3, 16, 16)).isfinite().all()


def test_resampling_without_convolutions_has_no_parameters() -> None:
    plain = UNetModel(small_config(conv_resample=False))
    learned = UNetModel(small_config())
    resampling = [m for m in plain.modules() if isinstance(m, Downsample | Upsample)]
    assert len(resampling) == 2
    assert not [p for module in resampling for p in module.parameters()]
    names = set(learned.state_dict()) - set(plain.state_dict())
    assert names == {
        "input_blocks.2.0.op.weight",
        "input_blocks.2.0.op.bias",
        "output_blocks.1.2.conv.weight",
        "output_blocks.1.2.conv.bias",
    }


def test_heads_for_upsampling_are_used_in_the_output_blocks_only() -> None:
    model = UNetModel(small_config(num_heads=2, num_heads_upsample=8))
    heads = {
        part: {m.num_heads for m in getattr(model, part).modules() if isinstance(m, AttentionBlock)}
        for part in ("input_blocks", "middle_block", "output_blocks")
    }
    assert heads == {"input_blocks": {2}, "middle_block": {2}, "output_blocks": {8}}


def test_head_channels_fix_the_width_of_a_head() -> None:
    model = UNetModel(small_config(num_head_channels=16))
    blocks = attention_blocks(model)
    assert {block.qkv.in_channels // block.num_heads for block in blocks} == {16}
    assert {block.num_heads for block in blocks} == {2, 4}


@pytest.mark.parametrize(("sides", "num_blocks"), [((), 1), ((4,), 1), ((8,), 4), ((16, 8), 7)])
def test_attention_sits_at_its_resolutions_and_always_at_the_bottom(
    sides: tuple[int, ...], num_blocks: int
) -> None:
    model = UNetModel(small_config(attention_resolutions=sides))
    assert len(attention_blocks(model)) == num_blocks


def test_time_and_class_change_the_output() -> None:
    model = fill(TimeConditionedUNet(small_config(num_classes=4)))
    x = noise(1, 3, 16, 16).expand(2, -1, -1, -1)
    by_time = model(x, torch.tensor([0, 900]), torch.tensor([1, 1]))
    by_class = model(x, torch.tensor([5, 5]), torch.tensor([1, 2]))
    assert not torch.allclose(by_time[0], by_time[1], atol=1e-3)
    assert not torch.allclose(by_class[0], by_class[1], atol=1e-3)


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    model = fill(SuperResModel(small_config(num_classes=4)))
    x, low_res, y = noise(2, 3, 16, 16), noise(2, 3, 4, 4, seed=1), torch.tensor([0, 3])
    both = model(x, TIMESTEPS, low_res, y)
    single_process = model(x[1:], TIMESTEPS[1:], low_res[1:], y[1:])
    torch.testing.assert_close(both[1:], single_process, atol=2e-5, rtol=0)


@pytest.mark.parametrize("num_classes", [None, 4])
def test_conditioning_once_equals_conditioning_at_every_step(num_classes: int | None) -> None:
    model = fill(SuperResModel(small_config(num_classes=num_classes)))
    x, low_res = noise(2, 3, 16, 16), noise(2, 3, 4, 4, seed=1)
    y = None if num_classes is None else torch.tensor([0, 3])
    kwargs = model.condition(low_res, tuple(x.shape[2:]), y)
    assert kwargs["low_res"].shape == x.shape
    assert ("y" in kwargs) == (num_classes is not None)
    assert torch.equal(model(x, TIMESTEPS, **kwargs), model(x, TIMESTEPS, low_res, y))


@pytest.mark.parametrize(
    ("num_classes", "y", "words"),
    [
        (4, None, "y is missing.*4"),
        (None, torch.tensor([0, 1]), "without classes"),
        (None, torch.zeros(2, 128), "without classes"),
        (4, torch.tensor([0, 4]), "label 4.*0 to 3"),
        (4, torch.tensor([-1, 0]), "label -1"),
        (4, torch.tensor([0]), "per image"),
        (4, torch.tensor([[0], [1]]), "integer"),
        (4, torch.tensor([0.0, 1.0]), "integer"),
    ],
)
def test_wrong_labels_are_refused(num_classes: int | None, y: Tensor | None, words: str) -> None:
    model = TimeConditionedUNet(small_config(num_classes=num_classes))
    with pytest.raises(ValueError, match=words):
        model(noise(2, 3, 16, 16), TIMESTEPS, y)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 15, 16), "divisible by 2"),
        ((1, 4, 16, 16), "3 channels"),
        ((3, 16, 16), "spatial axes"),
    ],
)
def test_images_of_the_wrong_shape_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNetModel(small_config())(noise(*shape))


def test_other_sizes_than_the_configured_one_work_if_the_levels_divide_them() -> None:
    assert fill(UNetModel(small_config()))(noise(1, 3, 8, 22)).shape == (1, 3, 8, 22)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 1, 4, 4), (2, 3, 4)])
def test_low_res_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="low_res of shape"):
        SuperResModel(small_config())(noise(2, 3, 16, 16), TIMESTEPS, noise(*shape))


def test_one_timestep_per_image_is_required() -> None:
    with pytest.raises(ValueError, match="timesteps of shape"):
        TimeConditionedUNet(small_config())(noise(2, 3, 16, 16), torch.tensor([1]))


@pytest.mark.parametrize(
    ("net_class", "changes", "words"),
    [
        (UNetModel, {"use_scale_shift_norm": True}, "use_scale_shift_norm"),
        (UNetModel, {"last_layer_type": "exp"}, "last_layer_type"),
        (UNetModel, {"predict_residual": True, "out_channels": 6}, "predict_residual"),
        (VarianceModel, {"predict_residual": True}, "predict_residual"),
        (TimeConditionedUNet, {"predict_residual": True}, "predict_residual"),
        (SuperResModel, {"last_layer_type": "exp"}, "last_layer_type"),
        (SuperResModel, {"predict_residual": True, "out_channels": 2}, "predict_residual"),
    ],
)
def test_an_option_that_a_net_does_not_have_is_refused(
    net_class: type[UNetBase], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        net_class(small_config(**changes))


def test_parameters_are_counted() -> None:
    assert count_parameters(torch.nn.Linear(3, 4)) == 16
