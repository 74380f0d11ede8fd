"""`--crop native` in every super-resolution script: own pixels, never mixed with resized ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import LARGE, SMALL, TEST_NAMES, Outcome, run, words
from utils.images.files import resolve_image_path
from utils.process.errors import EXIT_DATA

NATIVE = {"crop": "native"}


def _run(pipeline: Pipeline, script: str, root: Path, **more: Any) -> Outcome:
    return run(script, words(flags_of(pipeline, script, root), more))


def _center(pipeline: Pipeline, name: str) -> np.ndarray[Any, Any]:
    """The middle of an image as its file has it."""
    pixels = np.asarray(Image.open(resolve_image_path(pipeline.data.data_dir, name)).convert("RGB"))
    top, left = ((side - LARGE) // 2 for side in pixels.shape[:2])
    return pixels[top : top + LARGE, left : left + LARGE].astype(float)


def test_nets_samples_and_verification_see_the_centre_at_its_own_scale(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for script in ("sr_mean_test", "sr_var_test", "ddpm_sr_sample"):
        root = tmp_path / ("samples" if script == "ddpm_sr_sample" else "nets")
        outcome = _run(pipeline, script, root, **NATIVE)
        assert outcome.code == 0, outcome.err
        assert f"patches of {LARGE}×{LARGE} pixels at their own resolution" in outcome.out
    folders = {
        "ddpm_sr_output_dir": tmp_path / "samples" / "out",
        "sr_model_output_dir": tmp_path / "nets" / "out",
    }
    for name in TEST_NAMES:
        blocks = _center(pipeline, name).reshape(SMALL, LARGE // SMALL, SMALL, LARGE // SMALL, 3)
        low_res = np.asarray(Image.open(folders["ddpm_sr_output_dir"] / name / "low_res.png"))
        assert np.abs(low_res - blocks.mean(axis=(1, 3))).max() <= 0.51
    outcome = _run(pipeline, "sr_var_verification", tmp_path / "v", **NATIVE, **folders)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "v" / "log" / "results.json").read_text())
    name, psnrs = f"high_res_mean_{pipeline.mean_steps}.npy", []
    for image in TEST_NAMES:
        mean = np.load(folders["sr_model_output_dir"] / image / name).astype(float)
        psnrs.append(10 * np.log10(255**2 / np.mean((mean - _center(pipeline, image)) ** 2)))
    assert found["high_res"]["psnr_net"] == pytest.approx(np.mean(psnrs), rel=1e-6)
    # resized, the same results are of other pixels
    outcome = _run(pipeline, "sr_var_verification", tmp_path / "w", **folders)
    assert outcome.code == EXIT_DATA and "--crop native" in outcome.err
    assert "--crop resized" in outcome.err


@pytest.mark.parametrize("script", ["sr_mean_test", "ddpm_sr_sample"])
def test_results_of_both_crops_are_not_mixed(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    assert _run(pipeline, script, tmp_path).code == 0
    outcome = _run(pipeline, script, tmp_path, **NATIVE)
    assert outcome.code == EXIT_DATA
    assert "--crop native" in outcome.err or "--crop 'native'" in outcome.err


def test_records_without_a_word_about_the_crop_are_of_resized_ones(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """As earlier versions left them."""
    assert _run(pipeline, "ddpm_sr_sample", tmp_path).code == 0
    path = tmp_path / "out" / ".sampling.json"
    settings = json.loads(path.read_text())
    assert settings.pop("crop") == "resized"
    path.write_text(json.dumps(settings))
    assert _run(pipeline, "ddpm_sr_sample", tmp_path).code == 0
    outcome = _run(pipeline, "ddpm_sr_sample", tmp_path, **NATIVE)
    assert outcome.code == EXIT_DATA and "--crop 'native' (there: 'resized')" in outcome.err


def test_training_goes_on_with_the_same_crop_only(pipeline: Pipeline, tmp_path: Path) -> None:
    assert _run(pipeline, "sr_mean_train", tmp_path, **NATIVE).code == 0
    more = {"resume_checkpoint": "auto", "max_step": 2}
    outcome = _run(pipeline, "sr_mean_train", tmp_path, **more)
    assert outcome.code == EXIT_DATA and "--crop 'resized' (there: 'native')" in outcome.err
    assert _run(pipeline, "sr_mean_train", tmp_path, **more, **NATIVE).code == 0
    tested = {"model_path": tmp_path / "save" / "model000002.pt", "log_dir": tmp_path / "log"}
    outcome = _run(pipeline, "sr_mean_test", tmp_path, **tested)
    assert outcome.code == 0
    assert "images at this scale are new to it" in outcome.out


def test_variance_net_and_diffusion_model_train_on_patches(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for script in ("sr_var_train", "ddpm_sr_train"):
        outcome = _run(pipeline, script, tmp_path / script, **NATIVE)
        assert outcome.code == 0, outcome.err
        assert "at their own resolution" in outcome.out


def test_cache_of_a_training_on_patches_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    outcome = _run(pipeline, "sr_mean_train", tmp_path, cache_dir=tmp_path / "cache", **NATIVE)
    assert outcome.code == 2 and "--crop native" in outcome.err
    outcome = _run(pipeline, "sr_mean_test", tmp_path, cache_dir=tmp_path / "cache", **NATIVE)
    assert outcome.code == 0, outcome.err
