"""Checkpoints, model flags and lists of images that do not belong together are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.pipeline import Pipeline
from tests.scripts.runs import TRAININGS, assert_refused, flags_of
from tests.tiny import TEST_NAMES, done, run, tree, words, write_info
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA


@pytest.fixture
def other_sizes(pipeline: Pipeline, tmp_path: Path) -> dict[str, Path]:
    """A mean net for 4 → 16, with the weights' names and shapes of the one for 8 → 32."""
    flags = flags_of(pipeline, "sr_mean_train", tmp_path / "other")
    done("sr_mean_train", words(flags, large_size=16, small_size=4))
    return {
        "model": tmp_path / "other" / "save" / "model000001.pt",
        "args": tmp_path / "other" / "log" / "mean_model_args.pkl",
    }


def test_a_test_with_the_model_flags_of_another_network_is_refused(
    pipeline: Pipeline, tmp_path: Path, other_sizes: dict[str, Path]
) -> None:
    parts = (str(other_sizes["model"]), "--large_size 32", "--log_dir")
    changes = {"model_path": other_sizes["model"]}
    assert_refused(pipeline, "sr_mean_test", tmp_path, EXIT_CHECKPOINT, *parts, **changes)


@pytest.mark.parametrize("script", ["sr_var_train", "sr_var_test"])
def test_a_mean_net_of_other_sizes_is_refused_whatever_its_args_file_says(
    pipeline: Pipeline, tmp_path: Path, other_sizes: dict[str, Path], script: str
) -> None:
    changes = {"mean_model_path": other_sizes["model"]}
    parts = (str(other_sizes["model"]), "16", "--mean_model_args_path")
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **changes)
    parts = (
        "4 → 16",
        "8 → 32",
    )
    changes["mean_model_args_path"] = other_sizes["args"]
    assert_refused(pipeline, script, tmp_path, EXIT_CHECKPOINT, *parts, **changes)


def test_a_test_needs_no_args_file_where_the_manifest_has_the_flags(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = {**flags_of(pipeline, "sr_mean_test", tmp_path), "log_dir": tmp_path / "log"}
    assert "does not exist" in done("sr_mean_test", words(flags)).out
    for name in TEST_NAMES:
        (file,) = (tmp_path / "out" / name).glob("high_res_mean_*.npy")
        expected = np.load(pipeline.nets_dir / name / file.name)
        # kernels round by batch size, measured 1.5e-5
        np.testing.assert_allclose(np.load(file), expected, rtol=0, atol=1e-3)


def test_a_variance_net_takes_no_mean_net_but_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    state = torch.load(pipeline.mean_model, weights_only=True)
    state["out.2.bias"] += 0.25
    other = tmp_path / "mean" / "model000009.pt"
    other.parent.mkdir()
    torch.save(state, other)
    parts = (str(pipeline.var_model), "another mean net", "--mean_model_path")
    changes = {"mean_model_path": other}
    assert_refused(pipeline, "sr_var_test", tmp_path, EXIT_CHECKPOINT, *parts, **changes)
    shutil.copytree(pipeline.save_dir("sr_var"), tmp_path / "save")
    shutil.copytree(pipeline.log_dir("sr_var"), tmp_path / "log")
    before = tree(tmp_path / "save")
    flags = flags_of(pipeline, "sr_var_train", tmp_path)
    outcome = run("sr_var_train", words(flags, resume_checkpoint="auto", max_step=9, **changes))
    assert outcome.code == EXIT_CHECKPOINT and "another mean net" in outcome.err
    assert tree(tmp_path / "save") == before


def test_other_sizes_of_a_resumed_run_are_said_at_both_ends_and_refused_on_request(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = flags_of(pipeline, "sr_mean_train", tmp_path)
    done("sr_mean_train", words(flags))
    again = {**flags, "resume_checkpoint": "auto", "large_size": 16, "small_size": 4}
    outcome = run("sr_mean_train", words(again, strict_flags=True, max_step=2))
    assert outcome.code == EXIT_CHECKPOINT and "--init_from" in outcome.err
    assert not (tmp_path / "save" / "model000002.pt").exists()
    lines = done("sr_mean_train", words(again, max_step=2)).out.splitlines()
    said = [i for i, line in enumerate(lines) if "large_size 32" in line]
    assert len(said) == 2 and said[1] == len(lines) - 1


@pytest.mark.parametrize("script", TRAININGS)
def test_a_training_is_not_gone_on_with_on_another_list_of_images(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    flags = flags_of(pipeline, script, tmp_path)
    done(script, words(flags))
    info = write_info(tmp_path / "info.pkl", TEST_NAMES)
    before = tree(tmp_path / "save")
    again = {**flags, "resume_checkpoint": "auto", "max_step": 2, "data_info_dict_path": info}
    outcome = run(script, words(again))
    assert outcome.code == EXIT_DATA and "--init_from" in outcome.err
    assert tree(tmp_path / "save") == before


@pytest.mark.parametrize("script", TRAININGS)
def test_every_training_starts_a_new_run_from_weights(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    flags: dict[str, Any] = flags_of(pipeline, script, tmp_path / "old")
    done(script, words(flags))
    weights = tmp_path / "old" / "save" / "model000001.pt"
    new = flags_of(pipeline, script, tmp_path / "new")
    info = write_info(tmp_path / "info.pkl", TEST_NAMES)
    done(script, words(new, init_from=weights, data_info_dict_path=info, lr=1e-12))
    one, other = (
        torch.load(tmp_path / name / "save" / "model000001.pt", weights_only=True)
        for name in ("old", "new")
    )
    assert all(torch.allclose(one[key], other[key], rtol=0, atol=1e-9) for key in one)


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test", "sr_var_train"])
def test_a_net_of_images_that_were_read_another_way_up_is_named(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    flags = flags_of(pipeline, script, tmp_path)
    assert "--apply_orientation" not in done(script, words(flags, dry_run=True)).out
    said = done(script, words(flags, dry_run=True, apply_orientation=True)).out
    assert "--apply_orientation False" in said
