"""Hyper-parameters: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.config import (
    UNetConfig,
    default_diffusion_channel_mult,
    default_regression_channel_mult,
    parse_attention_resolutions,
    parse_channel_mult,
)
from tests.models.nets import small_config


def test_importing_the_config_does_not_import_torch() -> None:
    code = "import sys, models, models.config; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_config().dropout = 0.5  # type: ignore[misc]


def test_sequences_become_tuples_so_that_a_config_can_be_hashed() -> None:
    config = small_config(channel_mult=[1, 2], attention_resolutions=[8])
    assert config.channel_mult == (1, 2)
    assert config.attention_resolutions == (8,)
    assert hash(config) == hash(small_config(attention_resolutions=(8,)))


def test_widths_and_factors_follow_from_the_fields() -> None:
    config = UNetConfig(
        image_size=64,
        channel_mult=(0.5, 1, 2.5),
        model_channels=32,
        attention_resolutions=(32, 16, 8),
    )
    assert config.widths == (16, 32, 80)
    assert config.downsample_factor == 4
    assert config.attention_factors == {2, 4, 8}
    assert config.time_embed_dim == 128


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 5}, ["--num_heads 5", "64 channels"]),
        ({"num_head_channels": 24}, ["--num_head_channels 24", "64 channels"]),
        ({"num_heads_upsample": 3}, ["--num_heads_upsample 3", "channels"]),
        ({"image_size": 18, "channel_mult": (1, 1, 1)}, ["18", "divisible by 4", "channel_mult"]),
        ({"attention_resolutions": (12,)}, ["--attention_resolutions 12", "image size 16"]),
        ({"attention_resolutions": (0,)}, ["--attention_resolutions 0"]),
        ({"channel_mult": ()}, ["--channel_mult", "multiplier"]),
        ({"channel_mult": (0.01,)}, ["--channel_mult 0.01", "--model_channels 32"]),
        ({"channel_mult": "1,2"}, ["channel_mult='1,2'", "parse_channel_mult"]),
        ({"attention_resolutions": "16"}, ["parse_attention_resolutions"]),
        ({"last_layer_type": "relu"}, ["--last_layer_type 'relu'", "none, exp, sigmoid, softplus"]),
        ({"dims": 4}, ["--dims 4", "1, 2 or 3"]),
        ({"use_fp16": True, "use_bf16": True}, ["--use_fp16", "--use_bf16", "only one"]),
        ({"dropout": 1.0}, ["--dropout 1.0", "[0, 1)"]),
        ({"dropout": float("nan")}, ["--dropout nan"]),
        ({"num_res_blocks": 0}, ["--num_res_blocks 0", "positive"]),
        ({"num_res_blocks": 10**18}, [f"--num_res_blocks {10**18}", "at most 1000"]),
        ({"channel_mult": (1, 1e308)}, ["--channel_mult 1e+308", "lower"]),
        ({"model_channels": 10**18}, [f"--model_channels {10**18}", "lower"]),
        ({"model_channels": 2**17}, ["--model_channels 131072", "parameters", "lower"]),
        ({"num_classes": 10**15}, [f"{10**15} classes", "parameters", "lower"]),
        ({"model_channels": -32}, ["--model_channels -32", "positive"]),
        ({"num_heads": 0}, ["--num_heads 0", "positive"]),
        ({"num_head_channels": 0}, ["--num_head_channels 0", "-1"]),
        ({"num_classes": 0}, ["--num_classes 0", "None"]),
    ],
)
def test_a_wrong_field_is_refused_with_its_flag_its_value_and_a_remedy(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        small_config(**changes)
    for word in words:
        assert word in str(error.value)


def test_attention_at_a_resolution_that_no_level_has_adds_nothing() -> None:
    config = small_config(attention_resolutions=(2,))
    assert config.attention_factors == {8}


def test_head_channels_take_precedence_over_the_numbers_of_heads() -> None:
    config = small_config(num_head_channels=16, num_heads_upsample=2)
    assert config.heads_for(64, is_upsampling=False) == 4
    assert config.heads_for(64, is_upsampling=True) == 4


def test_heads_on_the_way_up_default_to_those_on_the_way_down() -> None:
    assert small_config(num_heads=4).heads_for(64, is_upsampling=True) == 4
    config = small_config(num_heads=4, num_heads_upsample=8)
    assert config.heads_for(64, is_upsampling=False) == 4
    assert config.heads_for(64, is_upsampling=True) == 8


def test_channel_multipliers_may_be_fractions() -> None:
    assert parse_channel_mult("0.5,1, 2") == (0.5, 1.0, 2.0)


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2", "0,1", "-1", "nan", "inf"])
def test_malformed_channel_multipliers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--channel_mult .*0\.5,1,2"):
        parse_channel_mult(text)


@pytest.mark.parametrize(
    ("text", "sides"), [("16,8", (16, 8)), (" 32, 16 ,8 ", (32, 16, 8)), ("8", (8,)), ("", ())]
)
def test_attention_resolutions_may_have_spaces(text: str, sides: tuple[int, ...]) -> None:
    assert parse_attention_resolutions(text) == sides


@pytest.mark.parametrize("text", ["16,", "8.5", "x", "0", "-8", "16 8"])
def test_malformed_attention_resolutions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--attention_resolutions .*32,16,8"):
        parse_attention_resolutions(text)


def test_default_multipliers_are_those_of_the_contract() -> None:
    assert default_regression_channel_mult(512) == (0.5, 1, 1, 2, 2, 4, 4)
    assert default_regression_channel_mult(256) == (1, 1, 2, 2, 4, 4)
    assert default_diffusion_channel_mult(512) == (1, 1, 2, 2, 4, 4)
    assert default_diffusion_channel_mult(256) == (1, 1, 2, 2, 4, 4)
    assert default_diffusion_channel_mult(128) == (1, 1, 2, 3, 4)
    assert default_diffusion_channel_mult(64) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "look_up", [default_regression_channel_mult, default_diffusion_channel_mult]
)
def test_a_size_without_default_multipliers_says_what_to_pass(look_up: Any) -> None:
    with pytest.raises(ValueError, match=r"size 32 .*--channel_mult"):
        look_up(32)
