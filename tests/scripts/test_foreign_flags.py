"""Flags that other tools have: the message names what is meant here, where the script has it."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.tiny import ROOT, run
from utils.process.foreign_flags import _FLAGS, explain_foreign_flag
from utils.script_util import FlagParser

SCRIPTS = [
    path.stem for path in sorted(ROOT.glob("*.py")) if "def create_parser" in path.read_text()
]


def _known(script: str) -> set[str]:
    parser: FlagParser = importlib.import_module(script).create_parser()
    return {option for action in parser._actions for option in action.option_strings}


def _said(script: str, flag: str) -> str:
    outcome = run(script, [flag, "1"])
    assert outcome.code == 2
    (line,) = [line for line in outcome.err.splitlines() if "unknown flag" in line]
    return line


@pytest.mark.parametrize(
    ("script", "flag", "ours"),
    [
        # guided-diffusion
        ("classifier_train", "--iterations", "--max_step"),
        ("classifier_train", "--anneal_lr", "--lr_anneal_steps"),
        ("image_train", "--optim", "--optimizer"),
        ("image_train", "--loss", "--loss_type"),
        ("classifier_train", "--eval_interval", "--val_interval"),
        ("classifier_train", "--val_dir", "--val_data_dir"),
        ("image_train", "--activation", "--act"),
        ("ddpm_sr_sample", "--num_samples", "--num_samples_per_image"),
        ("sr_mean_train", "--image_size", "--large_size"),
        ("sr_mean_train", "--num_channels", "--model_channels"),
        ("image_train", "--model_channels", "--num_channels"),
        ("image_train", "--ema_decay", "--ema_rate"),
        # Integrated Design Diffusion Model
        ("image_train", "--dataset_path", "--data_dir"),
        ("image_train", "--result_path", "--model_save_dir"),
        ("image_train", "--epochs", "--max_step"),
        ("image_train", "--conditional", "--class_cond"),
        ("image_train", "--lr_func", "--lr_schedule"),
        ("image_train", "--resume", "--resume_checkpoint"),
        ("image_train", "--amp", "--use_fp16"),
        ("image_sample", "--weight_path", "--model_path"),
        ("image_sample", "--num_images", "--num_samples"),
        ("image_sample", "--class_name", "--labels"),
        ("image_sample", "--cfg_scale", "--guidance_scale"),
        ("image_sample", "--sample", "--sampler"),
        # diffusers, and habits
        ("image_train", "--train_batch_size", "--batch_size"),
        ("image_train", "--batch", "--batch_size"),
        ("image_train", "--resolution", "--image_size"),
        ("image_train", "--gradient_accumulation_steps", "--microbatch"),
        ("image_train", "--checkpointing_steps", "--save_interval"),
        ("image_train", "--total-steps", "--max_step"),
        ("image_train", "--lr_anneal", "--lr_anneal_steps"),
        ("sr_mean_train", "--save_dir", "--model_save_dir"),
        ("sr_mean_test", "--save_dir", "--output_dir"),
        ("sr_mean_test", "--model_path_checkpoints", "--model_path"),
        ("sr_data_info", "--num_workers", "--num_threads"),
        ("noisy_label_sweep", "--num_workers", "--num_processes"),
        ("image_sample", "--num_inference_steps", "--timestep_respacing"),
        ("image_sample", "--steps", "--timestep_respacing"),
        ("image_train", "--steps", "--max_step"),
        ("image_train", "--optim", "--optimizer"),
        ("image_train", "--no_random_flip", "--random_flip False"),
        ("sr_mean_train", "--val_data_dir", "--val_data_info_dict_path"),
        ("sr_var_train", "--validation_split", "--val_share"),
        ("sr_baseline_train", "--eval_interval", "--val_interval"),
    ],
)
def test_the_flag_that_is_meant_is_named(script: str, flag: str, ours: str) -> None:
    assert re.search(rf"unknown flag {flag} \(here {ours}\b", _said(script, flag))


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--use_gpu", "CUDA_VISIBLE_DEVICES"),
        ("--world_size", "torchrun"),
    ],
)
def test_what_has_no_flag_is_said(flag: str, words: str) -> None:
    assert words in _said("image_train", flag)


def test_epochs_are_said_to_be_no_steps() -> None:
    assert "not epochs" in _said("image_train", "--epochs")


@pytest.mark.parametrize("flag", ["--iterations", "--epochs", "--lr_func"])
def test_a_script_without_such_a_flag_suggests_none(flag: str) -> None:
    assert re.search(rf"unknown flag {flag}$", _said("sr_var_verification", flag))


@pytest.mark.parametrize(
    ("script", "flag", "ours"),
    [
        ("sr_mean_train", "--rusume_checkpoint", "--resume_checkpoint"),
        ("image_train", "--log-dir", "--log_dir"),
    ],
)
def test_the_nearest_flag_is_still_named(script: str, flag: str, ours: str) -> None:
    assert f"{ours}?" in _said(script, flag)


def test_an_unlikely_flag_is_not_suggested() -> None:
    assert "(" not in _said("image_train", "--frobnicate")


def test_no_script_has_a_flag_named_that_it_has_not() -> None:
    words = sorted({word for words in _FLAGS.values() for word in words.split()})
    all_flags: set[str] = set()
    for script in SCRIPTS:
        known = _known(script)
        all_flags |= known
        for word in words:
            hint = explain_foreign_flag(f"--{word}", known) or ""
            assert set(re.findall(r"--[a-z_0-9]+", hint)) <= known, (script, word, hint)
    for ours in _FLAGS:
        assert any(f"--{flag}" in all_flags for flag in ours), ours


def test_each_word_stands_in_the_table_once() -> None:
    words = [word for words in _FLAGS.values() for word in words.split()]
    assert len(words) == len(set(words))
