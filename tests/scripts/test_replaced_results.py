"""What was made with another net or of other images is not mixed with what is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipeline import NUM_SAMPLES, Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import TEST_NAMES, done, run, tree, words
from utils.images.files import resolve_image_path
from utils.process.errors import EXIT_DATA


@pytest.fixture
def other_images(pipeline: Pipeline, tmp_path: Path) -> Path:
    """Other images under the same names: their negatives."""
    folder = tmp_path / "negatives"
    shutil.copytree(pipeline.data.data_dir, folder)
    for name in TEST_NAMES:
        path = resolve_image_path(folder, name)
        kind = "PNG" if path.endswith(".png") else "JPEG"
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path, format=kind)
    return folder


@pytest.fixture
def other_mean(pipeline: Pipeline, tmp_path: Path) -> Path:
    """A mean net of the same step and other weights, with its manifest left behind."""
    state = torch.load(pipeline.mean_model, weights_only=True)
    state["out.2.bias"] += 0.25
    path = tmp_path / "mean" / pipeline.mean_model.name
    path.parent.mkdir()
    torch.save(state, path)
    return path


def test_means_of_another_net_are_not_judged_with_the_variances_that_are_there(
    pipeline: Pipeline, tmp_path: Path, other_mean: Path
) -> None:
    nets = tmp_path / "nets"
    shutil.copytree(pipeline.nets_dir, nets)
    flags = {**pipeline.mean_test_flags, "output_dir": nets, "model_path": other_mean}
    said = done("sr_mean_test", words(flags)).out
    assert any(
        "removed" in line and f"{len(TEST_NAMES)} images" in line for line in said.splitlines()
    )
    assert f"variances of step {pipeline.var_steps}" in said
    verify = {**pipeline.verification_flags, "sr_model_output_dir": nets}
    outcome = run("sr_var_verification", words(verify, log_dir=tmp_path / "compare"))
    assert outcome.code == EXIT_DATA
    assert f".mean_{pipeline.mean_steps}.json" in outcome.err and "--mean_model_path" in outcome.err
    assert not (tmp_path / "compare" / "results.json").exists()


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_test_of_other_images_does_not_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, other_images: Path, script: str, is_whole: bool
) -> None:
    shutil.copytree(pipeline.nets_dir, tmp_path / "out")
    if not is_whole:
        for path in (tmp_path / "out").rglob("high_res_*"):
            path.unlink()
    before = tree(tmp_path / "out")
    outcome = run(script, words(flags_of(pipeline, script, tmp_path), data_dir=other_images))
    assert outcome.code == EXIT_DATA and "low_res.png" in outcome.err
    assert "--data_dir" in outcome.err and tree(tmp_path / "out") == before


@pytest.mark.parametrize("num_samples", [NUM_SAMPLES, NUM_SAMPLES + 1])
def test_samples_of_other_images_do_not_join_a_folder(
    pipeline: Pipeline, tmp_path: Path, other_images: Path, num_samples: int
) -> None:
    shutil.copytree(pipeline.samples_dir, tmp_path / "out")
    before = tree(tmp_path / "out")
    changes: dict[str, Any] = {"data_dir": other_images, "num_samples_per_image": num_samples}
    flags = {**flags_of(pipeline, "ddpm_sr_sample", tmp_path), **changes}
    outcome = run("ddpm_sr_sample", words(flags))
    assert outcome.code == EXIT_DATA and "low_res.png" in outcome.err
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if f"sample_{NUM_SAMPLES}.png" in name]


def test_images_replaced_after_the_results_are_noticed_by_the_verification(
    pipeline: Pipeline, tmp_path: Path, other_images: Path
) -> None:
    flags = {**pipeline.verification_flags, "data_dir": other_images}
    outcome = run("sr_var_verification", words(flags, log_dir=tmp_path / "compare"))
    assert outcome.code == EXIT_DATA and "low_res.png" in outcome.err
