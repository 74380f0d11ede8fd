"""Bits per dimension: the bound in the files, resumed or split, is the one of the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import image_ddpm.nll
from ddpm.process import create_diffusion
from diffusion.bound import calc_bpd_loop
from diffusion.types import StepOptions
from image_ddpm.flags import ImageDiffusionFlags
from image_ddpm.networks import create_image_model
from tests.image_ddpm.tiny import CLASSES, NET, PROCESS, named_images, write_images, write_model
from tests.tiny import done, run, tree, words
from utils.images.crops.dataset import TestCrops
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image
from utils.seeds import stable_seed
from utils.untrusted.state_dict import load_model

SCRIPT, STEPS = "image_nll", 4
FLAGS: dict[str, Any] = {**NET, **CLASSES, **PROCESS, "diffusion_steps": STEPS, "batch_size": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and a network."""
    root = tmp_path_factory.mktemp("nll")
    named_images(root / "images")
    write_model(root / "m.pt", **CLASSES)
    return root


def _flags(place: Path, log_dir: Path, **more: Any) -> list[str]:
    files = {"model_path": place / "m.pt", "data_dir": place / "images", "log_dir": log_dir}
    return words(FLAGS, files, num_samples=5, **more)


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run; read only."""
    folder = tmp_path_factory.mktemp("whole")
    assert "bits per dimension" in done(SCRIPT, _flags(place, folder)).out
    return folder


def _terms(folder: Path) -> dict[str, Any]:
    with np.load(folder / "nll.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_bound_is_that_of_the_process_on_the_image_with_its_own_noise(
    place: Path, whole: Path
) -> None:
    model = create_image_model(learn_sigma=True, **NET, **CLASSES).eval()
    load_model(model, str(place / "m.pt"))
    process = create_diffusion(ImageDiffusionFlags(**{**PROCESS, "diffusion_steps": STEPS}))
    names = sorted(path.name for path in (place / "images").iterdir())
    image = TestCrops([Entry(names[2], 1)], NET["image_size"], str(place / "images"))[0]
    assert image is not None
    generator = torch.Generator().manual_seed(stable_seed(0, "likelihood", names[2]))
    found = calc_bpd_loop(
        process,
        model,
        bytes_to_image(image.image)[None],
        StepOptions(model_kwargs={"y": torch.tensor([1])}),
        noise_fn=lambda k: torch.randn(1, 3, 16, 16, generator=generator),
    )
    terms = _terms(whole)
    np.testing.assert_allclose(terms["total_bpd"][2], float(found["total_bpd"]), rtol=1e-4)
    np.testing.assert_allclose(terms["prior_bpd"][2], float(found["prior_bpd"]), rtol=1e-4)


def test_result_is_the_mean_with_its_error_and_its_terms_add_up(whole: Path) -> None:
    result, terms = json.loads((whole / "results.json").read_text()), _terms(whole)
    assert terms["total_bpd"].shape == (5,) and terms["mean_vb"].shape == (STEPS,)
    assert result["num_images"] == 5
    assert result["total_bpd"]["mean"] == pytest.approx(terms["total_bpd"].mean())
    error = terms["total_bpd"].std(ddof=1) / 5**0.5
    assert result["total_bpd"]["standard_error"] == pytest.approx(error)
    parts = result["vb_bpd"]["mean"] + result["prior_bpd"]["mean"]
    assert parts == pytest.approx(result["total_bpd"]["mean"], rel=1e-6)


def test_two_processes_measure_what_one_does(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done(SCRIPT, _flags(place, tmp_path))
    for name, value in _terms(whole).items():
        np.testing.assert_allclose(_terms(tmp_path)[name], value, rtol=1e-4, err_msg=name)


def test_stopped_measurement_goes_on(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = image_ddpm.nll.LikelihoodMeasure.measure, []

    def measuring(self: Any, indices: Any, *rest: Any) -> Any:
        calls.append(list(indices))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, indices, *rest)

    monkeypatch.setattr(image_ddpm.nll.LikelihoodMeasure, "measure", measuring)
    assert run(SCRIPT, _flags(place, tmp_path)).code == 75
    assert not (tmp_path / "results.json").exists()
    done(SCRIPT, _flags(place, tmp_path))
    assert calls == [[0, 1], [2, 3], [2, 3], [4]]
    for name, value in _terms(whole).items():
        assert np.array_equal(_terms(tmp_path)[name], value), name


@pytest.mark.parametrize(
    ("more", "code", "part"),
    [
        ({"num_samples": 0}, 2, "--num_samples 0"),
        ({"data_dir": ""}, 2, "--data_dir is empty"),
        ({"model_path": "none.pt"}, 4, "none.pt"),
        ({"num_classes": 4}, 4, "--num_classes"),
    ],
)
def test_wrong_flag_is_refused(
    place: Path, tmp_path: Path, more: dict[str, Any], code: int, part: str
) -> None:
    outcome = run(SCRIPT, [*_flags(place, tmp_path / "log"), *words(more)])
    assert outcome.code == code and part in outcome.err, outcome.err
    assert not (tmp_path / "log" / "results.json").exists()


def test_more_images_join_those_that_are_measured(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(SCRIPT, [*_flags(place, tmp_path), *words(num_samples=2)])
    real, seen = image_ddpm.nll.LikelihoodMeasure.measure, []

    def measuring(self: Any, indices: Any, *rest: Any) -> Any:
        seen.extend(indices)
        return real(self, indices, *rest)

    monkeypatch.setattr(image_ddpm.nll.LikelihoodMeasure, "measure", measuring)
    done(SCRIPT, _flags(place, tmp_path))
    assert seen == [2, 3, 4]
    np.testing.assert_allclose(_terms(tmp_path)["total_bpd"], _terms(whole)["total_bpd"], rtol=1e-4)


def test_results_of_images_that_were_replaced_are_not_mixed_with_new_ones(
    place: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(place / "images", images)
    flags = [*_flags(place, tmp_path / "out"), "--data_dir", str(images)]
    done(SCRIPT, [*flags, "--num_samples", "4"])
    path = sorted(images.iterdir())[1]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    before = tree(tmp_path / "out" / "parts")
    for num_samples in ("4", "5"):
        outcome = run(SCRIPT, [*flags, "--num_samples", num_samples])
        assert outcome.code == 3 and path.name in outcome.err and "--data_dir" in outcome.err
    assert tree(tmp_path / "out" / "parts") == before


def test_parts_of_an_earlier_version_are_gone_on_with(place: Path, tmp_path: Path) -> None:
    done(SCRIPT, [*_flags(place, tmp_path), "--num_samples", "2"])
    (part,) = (tmp_path / "parts").iterdir()
    with np.load(part) as file:
        arrays = {name: file[name] for name in file.files if name != "crc32"}
    np.savez(part, **arrays)
    done(SCRIPT, _flags(place, tmp_path))


def test_another_network_in_the_same_folder_is_refused(place: Path, whole: Path) -> None:
    outcome = run(SCRIPT, [*_flags(place, whole), *words(seed=3)])
    assert outcome.code == 3 and "--seed 3" in outcome.err
    done(SCRIPT, [*_flags(place, whole), *words(use_kl=True)])  # a flag of training


def test_labels_are_those_of_the_training(place: Path, tmp_path: Path) -> None:
    """A folder without the first class: its images keep the labels that the network knows."""
    train = {"batch_size": 2, "max_step": 1, "log_interval": 1, "model_save_dir": tmp_path / "save"}
    process = {**PROCESS, "diffusion_steps": STEPS}
    data = {"data_dir": place / "images", "log_dir": tmp_path / "log"}
    done("image_train", words(NET, CLASSES, process, train, data))
    rest = write_images(tmp_path / "rest", ["dog_1.png", "eel_1.png"])
    flags = {"data_dir": rest, "model_path": tmp_path / "save/model000001.pt", "num_samples": -1}
    said = done(SCRIPT, words(FLAGS, flags, log_dir=tmp_path / "nll")).out
    assert "2 images, 2 of 3" in said and "warning: labels" not in said
    wrong = write_images(tmp_path / "wrong", ["fox_1.png"])
    outcome = run(SCRIPT, words(FLAGS, {**flags, "data_dir": wrong}, log_dir=tmp_path / "other"))
    assert outcome.code == 3 and "'fox'" in outcome.err


def test_dry_run_writes_nothing(place: Path, tmp_path: Path) -> None:
    said = done(SCRIPT, _flags(place, tmp_path / "log", dry_run=True)).out
    assert (
        any("5 images" in line and "4 terms" in line for line in said.splitlines())
        and not (tmp_path / "log").exists()
    )


def test_damaged_and_small_images_are_left_out_on_request_and_more_may_join(
    place: Path, tmp_path: Path
) -> None:
    images = named_images(tmp_path / "images")
    (images / "cat_2.png").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(images / "dog_1.png")
    flags = [*_flags(place, tmp_path / "log"), *words(data_dir=images)]
    outcome = run(SCRIPT, flags)
    assert outcome.code == 3 and "cat_2.png" in outcome.err
    skipping = words(on_bad_image="skip", small_images="skip", output_dir=tmp_path / "out")
    outcome = done(SCRIPT, [*flags, *skipping, *words(num_samples=2)])
    assert "skipped" in outcome.out and "cat_2.png" in outcome.out
    assert any("1 images" in line and "16 pixels" in line for line in outcome.out.splitlines())
    first = _terms(tmp_path / "out")["total_bpd"]
    done(SCRIPT, [*flags, *skipping, *words(num_samples=-1)])
    assert _terms(tmp_path / "out")["total_bpd"].shape == (4,)
    np.testing.assert_array_equal(_terms(tmp_path / "out")["total_bpd"][:2], first)
    refused = words(on_bad_image="skip", small_images="error", output_dir=tmp_path / "other")
    outcome = run(SCRIPT, [*flags, *refused])
    assert outcome.code == 3 and "dog_1.png, 9×9" in outcome.err
