"""A checkpoint that does not fit is met with the flag that is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from models.config import UNetConfig
from models.unet import SuperResModel, UNetModel, VarianceModel

PLAIN = UNetConfig(
    image_size=16,
    model_channels=16,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
)
DENOISER = dataclasses.replace(PLAIN, use_scale_shift_norm=True)


def _hint(there: torch.nn.Module, here: Any) -> str:
    theirs, ours = there.state_dict(), here.state_dict()
    missing = [name for name in ours if name not in theirs]
    unexpected = [name for name in theirs if name not in ours]
    misshaped = {
        name: (tuple(theirs[name].shape), tuple(ours[name].shape))
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    }
    hint: str = here.explain_mismatch(missing, unexpected, misshaped)
    return hint


def _change(config: UNetConfig, **changes: Any) -> UNetConfig:
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("there", "here", "word"),
    [
        (DENOISER, _change(DENOISER, num_classes=10), "--class_cond False"),
        (_change(DENOISER, num_classes=10), DENOISER, "--class_cond True"),
        (_change(DENOISER, num_classes=10), _change(DENOISER, num_classes=5), "--num_classes"),
        (_change(DENOISER, num_classes=6), _change(DENOISER, num_classes=5), "--class_dropout"),
        (
            _change(DENOISER, num_classes=5, model_channels=32),
            _change(DENOISER, num_classes=5),
            "--num_channels",
        ),
        (_change(DENOISER, out_channels=6), DENOISER, "--learn_sigma True"),
        (DENOISER, _change(DENOISER, out_channels=6), "--learn_sigma False"),
        (_change(DENOISER, use_scale_shift_norm=False), DENOISER, "--use_scale_shift_norm False"),
        (DENOISER, _change(DENOISER, use_scale_shift_norm=False), "--use_scale_shift_norm True"),
        (_change(DENOISER, channel_mult=(1, 3)), DENOISER, "see --channel_mult"),
    ],
)
def test_the_flag_of_a_denoiser_is_named(there: UNetConfig, here: UNetConfig, word: str) -> None:
    assert word in _hint(SuperResModel(there), SuperResModel(here))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_channels": 32}, "--model_channels"),
        ({"resblock_updown": True}, "--resblock_updown True"),
        ({"num_res_blocks": 2}, "--num_res_blocks"),
        ({"attention_resolutions": (16, 8)}, "--attention_resolutions"),
        ({"channel_mult": (1, 3)}, "--channel_mult"),
    ],
)
def test_the_flag_of_a_regression_net_is_named(changes: dict[str, Any], word: str) -> None:
    assert word in _hint(UNetModel(_change(PLAIN, **changes)), UNetModel(PLAIN))


def test_a_file_of_another_kind_of_net_is_recognised() -> None:
    assert "diffusion model" in _hint(SuperResModel(DENOISER), UNetModel(PLAIN))
    assert "diffusion model" in _hint(UNetModel(PLAIN), SuperResModel(DENOISER))
    assert "mean or variance net?" in _hint(VarianceModel(PLAIN), UNetModel(PLAIN))


def test_nothing_is_guessed_where_nothing_differs() -> None:
    assert _hint(UNetModel(PLAIN), UNetModel(PLAIN)) == ""
