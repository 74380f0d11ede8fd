"""Guided sampling through the scripts: by a trained classifier, and by the network itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import cpus
from tests.image_ddpm.tiny import CLASSES, NET, PROCESS, named_images, read_samples, write_model
from tests.tiny import done, run, words
from tests.utils.training_loops import differences, saved_run
from utils.process.errors import EXIT_USAGE
from utils.untrusted.state_dict import read_torch_file

IMAGE = {"image_size": NET["image_size"], "num_classes": 3}
CLASSIFIER: dict[str, Any] = {
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": "8",
    "classifier_num_head_channels": 8,
}
SAMPLING: dict[str, Any] = {**PROCESS, "timestep_respacing": "4", "num_samples": 4, "batch_size": 2}


def _train(images: Path, log_dir: Path, **more: Any) -> None:
    flags = {"batch_size": 3, "log_interval": 1, "data_dir": images, "log_dir": log_dir}
    done("classifier_train", words(IMAGE, CLASSIFIER, PROCESS, flags, more))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a trained classifier, networks with and without classes."""
    root = tmp_path_factory.mktemp("guided")
    _train(named_images(root / "images"), root / "classifier", max_step=3)
    write_model(root / "plain.pt")
    write_model(root / "null.pt", **CLASSES, class_dropout=0.1)
    return root


def test_interrupted_classifier_ends_as_a_whole_one(place: Path, tmp_path: Path) -> None:
    _train(place / "images", tmp_path, max_step=2)
    _train(place / "images", tmp_path, max_step=3, resume_checkpoint="auto")
    one, other = (
        read_torch_file(str(folder / "model000003.pt"))
        for folder in (place / "classifier", tmp_path)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_classifier_learns_which_timesteps_to_draw_and_goes_on_after_a_stop(
    place: Path, tmp_path: Path
) -> None:
    drawn = {"schedule_sampler": "loss-second-moment", "diffusion_steps": 2, "microbatch": 2}
    _train(place / "images", tmp_path / "whole", max_step=14, **drawn)
    _train(place / "images", tmp_path / "cut", max_step=9, **drawn)
    _train(place / "images", tmp_path / "cut", max_step=14, resume_checkpoint="auto", **drawn)
    whole, cut = (saved_run(tmp_path / name, 14) for name in ("whole", "cut"))
    assert differences(whole, cut) == []
    learned = whole["state"]["schedule_sampler"]
    assert sum(learned["counts"]) == 14 * 3 and min(learned["counts"]) >= 10
    assert all(0 < loss < 5 for losses in learned["losses"] for loss in losses)
    _train(place / "images", tmp_path / "uniform", max_step=14, diffusion_steps=2, microbatch=2)
    assert differences(whole, saved_run(tmp_path / "uniform", 14)) != []


def test_timesteps_are_not_chosen_where_there_is_no_noise(place: Path, tmp_path: Path) -> None:
    flags = {"noised": False, "schedule_sampler": "loss-second-moment"}
    folders = {"data_dir": place / "images", "log_dir": tmp_path}
    outcome = run("classifier_train", words(IMAGE, CLASSIFIER, PROCESS, folders, flags))
    assert outcome.code == EXIT_USAGE
    assert "--schedule_sampler" in outcome.err and "--noised" in outcome.err


def test_classifier_without_noise_trains_on_clean_images(place: Path, tmp_path: Path) -> None:
    _train(place / "images", tmp_path, max_step=1, noised=False)
    clean = read_torch_file(str(tmp_path / "model000001.pt"))
    _train(place / "images", tmp_path / "noisy", max_step=1)
    noisy = read_torch_file(str(tmp_path / "noisy" / "model000001.pt"))
    assert any(not torch.equal(clean[key], noisy[key]) for key in clean)


def _sample(place: Path, log_dir: Path, model: str, **more: Any) -> np.ndarray[Any, Any]:
    flags = {"model_path": place / model, "log_dir": log_dir}
    done("image_sample", words(NET, IMAGE, SAMPLING, flags, more))
    found: np.ndarray[Any, Any] = read_samples(log_dir)["arr_0"]
    return found


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmpp_2m"])
def test_classifier_moves_the_samples_of_a_network_without_classes(
    place: Path, tmp_path: Path, sampler: str
) -> None:
    guide = {**CLASSIFIER, "classifier_path": place / "classifier" / "model000003.pt"}
    plain = _sample(place, tmp_path / "plain", "plain.pt", sampler=sampler)
    still = _sample(
        place, tmp_path / "zero", "plain.pt", sampler=sampler, classifier_scale=0.0, **guide
    )
    moved = _sample(
        place, tmp_path / "moved", "plain.pt", sampler=sampler, classifier_scale=300.0, **guide
    )
    assert np.abs(plain.astype(int) - still.astype(int)).max() <= 1
    assert np.abs(plain.astype(int) - moved.astype(int)).mean() > 1
    assert read_samples(tmp_path / "moved")["arr_1"].shape == (4,)


def test_gradients_of_an_fp16_classifier_are_taken_in_a_precision_that_has_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU that computes forward passes in fp16 has no backward pass in it."""
    cpus.compute_on(cpus.SAPPHIRE_RAPIDS, monkeypatch)
    half = {**CLASSIFIER, "classifier_use_fp16": True}
    train = {"batch_size": 3, "max_step": 1, "data_dir": place / "images", "log_dir": tmp_path}
    said = done("classifier_train", words(IMAGE, half, PROCESS, train)).out
    assert any("fp16" in line and "training in bf16" in line for line in said.splitlines())
    guide = {**half, "classifier_path": tmp_path / "model000001.pt", "log_dir": tmp_path / "drawn"}
    flags = {"model_path": place / "plain.pt", "classifier_scale": 2.0}
    said = done("image_sample", words(NET, IMAGE, SAMPLING, flags, guide)).out
    assert any("fp16" in line and "in fp32" in line for line in said.splitlines())


def test_classifier_free_guidance_goes_from_no_class_to_more_than_one(
    place: Path, tmp_path: Path
) -> None:
    # this sampler does not use the variance, which is always that of the class
    net = {**CLASSES, "class_dropout": 0.1, "labels": "0,1,2", "sampler": "dpmpp_2m"}
    plain = _sample(place, tmp_path / "plain", "null.pt", **net)
    guided = _sample(place, tmp_path / "guided", "null.pt", guidance_scale=3.0, **net)
    without = _sample(place, tmp_path / "without", "null.pt", guidance_scale=0.0, **net)
    other = {**net, "labels": "2,1,0"}
    same = _sample(place, tmp_path / "same", "null.pt", guidance_scale=0.0, **other)
    assert np.abs(plain.astype(int) - guided.astype(int)).mean() > 1
    assert np.abs(plain.astype(int) - without.astype(int)).mean() > 0.1
    assert np.abs(without.astype(int) - same.astype(int)).max() <= 1  # no class is no class


def test_another_guide_in_the_same_folder_is_refused(place: Path, tmp_path: Path) -> None:
    guide = {**CLASSIFIER, "classifier_path": place / "classifier" / "model000003.pt"}
    flags = {"model_path": place / "plain.pt", "log_dir": tmp_path}
    done("image_sample", words(NET, IMAGE, SAMPLING, flags, guide, classifier_scale=2.0))
    outcome = run("image_sample", words(NET, IMAGE, SAMPLING, flags, guide, classifier_scale=3.0))
    assert outcome.code == 3 and "--classifier_scale 3.0" in outcome.err


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        ({"classifier_path": "none.pt"}, 4, "none.pt"),
        ({"classifier_width": 16}, 4, "--classifier_width 16"),
        ({"classifier_pool": "adaptive"}, 4, "--classifier_pool 'adaptive'"),
        ({"classifier_pool": "none"}, 2, "invalid choice"),
    ],
)
def test_wrong_classifier_flag_is_refused(
    place: Path, tmp_path: Path, more: dict[str, Any], code: int, part: str
) -> None:
    guide = {**CLASSIFIER, "classifier_path": place / "classifier" / "model000003.pt", **more}
    flags = {"model_path": place / "plain.pt", "log_dir": tmp_path / "log"}
    outcome = run("image_sample", words(NET, IMAGE, SAMPLING, flags, guide))
    assert outcome.code == code and part in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
