"""From flags to networks: the contract's names and defaults, and messages for impossible flags."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import pytest
import torch

from diffusion.types import LossType, ModelMeanType, ModelVarType
from models.unet import SuperResModel, UNetModel, VarianceModel
from sr_var.flags import scripts as flag_module
from sr_var.flags.verify import VerificationFlags
from sr_var.script_util import (
    create_mean_model,
    create_sr_model,
    create_var_model,
    mean_model_defaults,
    sr_create_model_and_diffusion,
    sr_model_and_diffusion_defaults,
    var_model_defaults,
)
from tests.tiny import DENOISER, LARGE, PROCESS, REGRESSION_NET
from utils.script_util import from_args, make_parser

MEAN_DEFAULTS: dict[str, Any] = {
    "large_size": 256,
    "small_size": 64,
    "in_channels": 3,
    "model_channels": 128,
    "out_channels": 3,
    "num_res_blocks": 2,
    "attention_resolutions": "16,8",
    "dropout": 0.0,
    "channel_mult": "",
    "conv_resample": True,
    "dims": 2,
    "use_checkpoint": False,
    "use_fp16": False,
    "num_heads": 4,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "predict_residual": False,
}
SR_DEFAULTS: dict[str, Any] = {
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "large_size": 256,
    "small_size": 64,
    "use_scale_shift_norm": True,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "dropout": 0.0,
    **dict.fromkeys(
        ["class_cond", "learn_sigma", "resblock_updown", "use_fp16", "use_checkpoint"]
        + ["use_kl", "predict_xstart", "rescale_timesteps", "rescale_learned_sigmas"],
        False,
    ),
}


def test_defaults_are_the_contracts() -> None:
    assert mean_model_defaults().items() >= MEAN_DEFAULTS.items()
    assert var_model_defaults().items() >= {**MEAN_DEFAULTS, "last_layer_type": "none"}.items()
    assert sr_model_and_diffusion_defaults().items() >= SR_DEFAULTS.items()


def test_defaults_are_fresh_dicts() -> None:
    mean_model_defaults()["large_size"] = 1
    assert mean_model_defaults()["large_size"] == 256


def test_flags_make_the_networks_of_their_kind() -> None:
    assert type(create_mean_model(**REGRESSION_NET)) is UNetModel
    assert type(create_var_model(**REGRESSION_NET, last_layer_type="softplus")) is VarianceModel
    model, diffusion = sr_create_model_and_diffusion(**DENOISER, **PROCESS)
    assert type(model) is SuperResModel and diffusion.num_timesteps == 4


@pytest.mark.parametrize("create", [create_mean_model, create_var_model])
def test_unknown_keyword_is_an_error(create: Any) -> None:
    with pytest.raises(TypeError, match="num_wheels"):
        create(**REGRESSION_NET, num_wheels=4)
    with pytest.raises(TypeError, match="num_wheels"):
        sr_create_model_and_diffusion(**DENOISER, num_wheels=4)


def test_every_model_flag_reaches_the_network() -> None:
    """A flag that is parsed and then dropped would leave the config at its default."""
    values: dict[str, Any] = {
        "large_size": 32,
        "in_channels": 4,
        "model_channels": 16,
        "out_channels": 4,
        "num_res_blocks": 1,
        "dropout": 0.25,
        "conv_resample": False,
        "use_checkpoint": True,
        "use_fp16": True,
        "num_heads": 2,
        "num_head_channels": 8,
        "num_heads_upsample": 8,
        "resblock_updown": True,
        "use_new_attention_order": True,
        "act": "gelu",
        "predict_residual": True,
        "consistent": True,
        "num_classes": 7,
    }
    more = {
        "class_cond": True,
        "small_size": 8,
        "channel_mult": "0.5,1",
        "attention_resolutions": "16, 32",
    }
    config = create_mean_model(**values, **more).config
    assert config.image_size == values.pop("large_size")
    assert {name: getattr(config, name) for name in values} == values
    assert config.channel_mult == (0.5, 1.0) and config.attention_resolutions == (16, 32)
    # other data, a contradiction of fp16, another net (test_subpixel_nets.py)
    untested = {"dims", "use_bf16", "network", "res_block", "value_range"}
    untested |= {"degradation", "condition_on_level"}  # degrade/test_view.py
    assert {*values, *more, "large_size"} | untested == set(mean_model_defaults())


def test_fractional_channel_mult_is_accepted() -> None:
    config = create_mean_model(**{**REGRESSION_NET, "channel_mult": "0.5,1"}).config
    assert config.channel_mult == (0.5, 1.0)


@pytest.mark.parametrize(
    ("large_size", "mult"),
    [(512, (0.5, 1, 1, 2, 2, 4, 4)), (256, (1, 1, 2, 2, 4, 4))],
)
def test_empty_channel_mult_follows_the_size(large_size: int, mult: tuple[float, ...]) -> None:
    with torch.device("meta"):
        config = create_mean_model(large_size=large_size, model_channels=32).config
    assert config.channel_mult == mult


@pytest.mark.parametrize(
    ("large_size", "mult"),
    [
        (512, (1, 1, 2, 2, 4, 4)),
        (256, (1, 1, 2, 2, 4, 4)),
        (128, (1, 1, 2, 3, 4)),
        (64, (1, 2, 3, 4)),
    ],
)
def test_channel_mult_of_the_denoiser_follows_the_size(
    large_size: int, mult: tuple[float, ...]
) -> None:
    with torch.device("meta"):
        sizes = {"large_size": large_size, "small_size": large_size // 4}
        model = create_sr_model(learn_sigma=False, num_channels=32, **sizes)
    assert model.config.channel_mult == mult


def test_size_without_a_default_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match="--channel_mult"):
        create_mean_model(large_size=96, small_size=24)


@pytest.mark.parametrize("small_size", [5, 0, -8, 64])
def test_sizes_without_a_whole_factor_are_refused(small_size: int) -> None:
    flags = {"small_size": small_size, "large_size": LARGE}
    for create in (
        lambda: create_mean_model(**{**REGRESSION_NET, **flags}),
        lambda: create_sr_model(learn_sigma=False, **{**DENOISER_NET, **flags}),
    ):
        with pytest.raises(ValueError, match="multiple of --small_size"):
            create()


DENOISER_NET = {name: value for name, value in DENOISER.items() if name != "learn_sigma"}


def test_variance_net_refuses_to_predict_a_residual() -> None:
    with pytest.raises(ValueError, match=r"--predict_residual .*mean net"):
        create_var_model(**REGRESSION_NET, predict_residual=True)


@pytest.mark.parametrize(
    ("flags", "mean_type", "var_type", "loss_type"),
    [
        ({}, ModelMeanType.EPSILON, ModelVarType.FIXED_LARGE, LossType.MSE),
        (
            {"learn_sigma": True, "rescale_learned_sigmas": True},
            ModelMeanType.EPSILON,
            ModelVarType.LEARNED_RANGE,
            LossType.RESCALED_MSE,
        ),
        (
            {"predict_xstart": True, "use_kl": True},
            ModelMeanType.START_X,
            ModelVarType.FIXED_LARGE,
            LossType.RESCALED_KL,
        ),
    ],
)
def test_diffusion_flags_choose_the_process(
    flags: dict[str, Any], mean_type: ModelMeanType, var_type: ModelVarType, loss_type: LossType
) -> None:
    model, diffusion = sr_create_model_and_diffusion(**{**DENOISER, "learn_sigma": False, **flags})
    found = (diffusion.model_mean_type, diffusion.model_var_type, diffusion.loss_type)
    assert found == (mean_type, var_type, loss_type)
    assert model.config.out_channels == (6 if flags.get("learn_sigma") else 3)
    assert diffusion.num_timesteps == 1000


def test_class_condition_decides_the_label_embedding() -> None:
    with_labels = create_sr_model(learn_sigma=False, **DENOISER_NET)
    assert with_labels.label_emb.weight.shape == (5, 32)
    without = create_sr_model(learn_sigma=False, **{**DENOISER_NET, "class_cond": False})
    assert not hasattr(without, "label_emb") and without.config.num_classes is None


@pytest.mark.parametrize(
    ("flags_class", "flags"),
    [
        (flag_module.TestFlags, {"batch_size": 0}),
        (flag_module.VarTestFlags, {"batch_size": -1}),
        (flag_module.SampleFlags, {"batch_size": 0}),
        (flag_module.SampleFlags, {"num_samples_per_image": 0}),
        (VerificationFlags, {"num_samples": 1}),
        (VerificationFlags, {"num_panels": -2}),
        (flag_module.DataInfoFlags, {"num_test_per_class": -1}),
    ],
)
def test_count_that_no_run_could_use_is_refused_at_the_start(
    flags_class: type[Any], flags: dict[str, int]
) -> None:
    flag_name, value = next(iter(flags.items()))
    with pytest.raises(ValueError, match=f"--{flag_name} {value} "):
        flags_class(**flags)


def test_verification_finds_the_results_of_either_documented_size() -> None:
    """Neither of the two documented commands says where the nets' results are."""
    for large_size, name in ((256, "64_256"), (512, "128_512")):
        flags = VerificationFlags(large_size=large_size)
        assert flags.nets_dir == f"outputs/sr_var/{name}"
    assert VerificationFlags(sr_model_output_dir="x").nets_dir == "x"


def test_every_flag_has_a_help_text_and_a_default_of_its_type() -> None:
    classes = [
        value
        for name, value in vars(flag_module).items()
        if dataclasses.is_dataclass(value) and name.endswith("Flags")
    ]
    assert len(classes) >= 14
    for flags_class in classes:
        parser = make_parser("", group=flags_class)
        for action in parser._actions:
            assert action.help and (action.help == argparse.SUPPRESS or len(action.help) > 8)
        assert from_args(flags_class, parser.parse_args([])) == flags_class()
