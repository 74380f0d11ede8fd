"""Bad flags: one line that names the flag, its value and the remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.scripts.runs import FOLDERS, SCRIPTS, TRAININGS, assert_refused
from tests.tiny import tree
from utils.process.errors import EXIT_USAGE


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flag_names_the_nearest_known_one(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    parts = ("--data_dri", "--data_dir?", "usage:")
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, *parts, data_dri="x")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("script", "flag"), FOLDERS)
def test_empty_name_of_a_folder_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, flag: str
) -> None:
    """A training without a folder would go on to its end and save nothing."""
    parts = (f"--{flag} is empty; name a folder",)
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, *parts, **{flag: ""})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("script", TRAININGS)
@pytest.mark.parametrize("mult", ["1,x", "1,,2", "0,1", "-1", "1,2,4,8,16,32,64"])
def test_bad_channel_mult_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, mult: str
) -> None:
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, "channel_mult", channel_mult=mult)


@pytest.mark.parametrize(
    ("script", "changes", "part"),
    [
        ("sr_mean_train", {"use_fp16": "maybe"}, "'maybe'"),
        ("sr_mean_train", {"batch_size": 0}, "--batch_size 0"),
        ("sr_mean_train", {"microbatch": 0}, "--microbatch 0"),
        ("sr_mean_train", {"lr": 0}, "--lr 0.0"),
        ("sr_mean_train", {"small_size": 5}, "--small_size 5"),
        ("sr_mean_train", {"large_size": 96, "channel_mult": ""}, "pass --channel_mult"),
        ("sr_mean_train", {"use_fp16": True, "use_bf16": True}, "exclude"),
        ("sr_mean_train", {"out_channels": 1}, "--out_channels 1"),
        ("sr_var_train", {"in_channels": 0}, "--in_channels 0"),
        ("sr_mean_train", {"dims": 3}, "use 2"),
        ("sr_var_train", {"last_layer_type": "relu"}, "'relu'"),
        ("sr_var_train", {"predict_residual": True}, "for the mean net"),
        ("sr_mean_test", {"batch_size": 0}, "--batch_size 0"),
        ("sr_mean_test", {"random_flip": True}, "for training"),
        ("sr_var_test", {"random_turn": True}, "for training"),
        ("sr_mean_train", {"cache_dir": "x", "random_crop": True}, "--random_crop True"),
        ("sr_mean_train", {"num_workers": -2}, "--num_workers -2 must be -1 or at least 0"),
        ("sr_mean_test", {"num_workers": -2}, "--num_workers -2"),
        ("sr_data_info", {"num_threads": 0}, "--num_threads 0 must be -1 or at least 1"),
        ("sr_var_verification", {"num_threads": -2}, "--num_threads -2"),
        ("ddpm_sr_sample", {"num_samples_per_image": 0}, "at least 1"),
        ("sr_mean_train", {"large_size": -32}, "--large_size -32"),
        ("ddpm_sr_train", {"large_size": 0}, "--large_size 0"),
        ("sr_var_verification", {"large_size": -32}, "--large_size -32"),
        ("ddpm_sr_train", {"diffusion_steps": 0}, "--diffusion_steps 0"),
        ("ddpm_sr_sample", {"timestep_respacing": -5}, "--timestep_respacing -5"),
        ("ddpm_sr_sample", {"timestep_respacing": "ddimx"}, "ddim"),
        ("ddpm_sr_sample", {"timestep_respacing": "200"}, "200"),
        ("ddpm_sr_sample", {"eta": 0.5}, "ddim sampler"),
        ("ddpm_sr_sample", {"use_ddim": True, "eta": 2}, "[0, 1]"),
        ("ddpm_sr_sample", {"sampler": "dpm"}, "'dpm'"),
        ("ddpm_sr_sample", {"sampler": "plms", "eta": 0.5}, "ddim sampler"),
        ("ddpm_sr_sample", {"use_ddim": True, "sampler": "plms"}, "--sampler plms"),
        ("ddpm_sr_sample", {"use_ddim": True, "sampler": "ancestral"}, "contradict"),
        ("ddpm_sr_sample", {"timestep_respacing": "logsnrx"}, "'logsnrx'"),
        ("ddpm_sr_sample", {"timestep_respacing": "logsnr101"}, "2 to 100"),
        ("ddpm_sr_train", {"schedule_sampler": "loud"}, "'loud'"),
        ("ddpm_sr_train", {"noise_schedule": "flat"}, "'flat'"),
        ("sr_var_verification", {"num_samples": 1}, "--num_samples 1"),
        ("sr_data_info", {"num_test_per_class": -1}, "at least 0"),
    ],
)
def test_impossible_value_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], part: str
) -> None:
    assert_refused(pipeline, script, tmp_path, EXIT_USAGE, part, **changes)
