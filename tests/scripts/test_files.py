"""What each script leaves on disk, after one run of all of them: the contract's files."""

from __future__ import annotations

import json
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipeline import DDPM_STEPS, MEAN_STEPS, NUM_SAMPLES, VAR_STEPS, Pipeline
from tests.tiny import CLASSES, LARGE, REGRESSION_NET, SMALL, TEST_NAMES

SHAPE = (LARGE, LARGE, 3)
TRAININGS = {"sr_mean": MEAN_STEPS, "sr_var": VAR_STEPS, "ddpm_sr": DDPM_STEPS}
LOG_DIRS = ["sr_mean", "sr_var", "ddpm_sr", "sr_mean_test", "sr_var_test", "sample", "compare"]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _read_pickle(path: Path) -> object:
    content = path.read_bytes()
    assert content[:2] == b"\x80\x04", f"{path} is not of protocol 4"
    names = {str(arg) for opcode, arg, _ in pickletools.genops(content) if opcode.name == "GLOBAL"}
    assert not names
    return pickle.loads(content)


def test_info_dicts_list_every_image_once(pipeline: Pipeline) -> None:
    folder = pipeline.root / "data"
    assert _files(folder) == {
        "data_info.pkl",
        "train_data_info.pkl",
        "to_sample_data_info.pkl",
    }
    names = []
    for file in ("train_data_info.pkl", "to_sample_data_info.pkl"):
        info = _read_pickle(folder / file)
        assert isinstance(info, dict)
        assert all(set(entry) == {"y", "file_names"} for entry in info.values())
        names += [name for entry in info.values() for name in entry["file_names"]]
    assert sorted(names) == sorted(name for _, members in CLASSES.values() for name in members)


@pytest.mark.parametrize("task", TRAININGS)
def test_training_leaves_sets_of_weights_optimizer_and_manifest(
    pipeline: Pipeline, task: str
) -> None:
    last, extra = TRAININGS[task], {"ddpm_sr": ["ema_0.9_{:06d}.pt"]}.get(task, [])
    steps = sorted({2, last})
    patterns = ["model{:06d}.pt", "opt{:06d}.pt", "ckpt{:06d}.json", *extra]
    names = {pattern.format(step) for pattern in patterns for step in steps}
    assert _files(pipeline.save_dir(task)) - {".writer.lock"} == names
    state = torch.load(pipeline.save_dir(task) / f"model{last:06d}.pt", weights_only=True)
    assert {value.dtype for value in state.values()} == {torch.float32}
    manifest = json.loads((pipeline.save_dir(task) / f"ckpt{last:06d}.json").read_text())
    assert manifest["step"] == last
    assert set(manifest["files"]) == {name for name in names if name.endswith(f"{last:06d}.pt")}
    assert all({"size", "sha256"} <= set(entry) for entry in manifest["files"].values())
    assert {"flags", "versions"} <= set(manifest)


@pytest.mark.parametrize("task", ["sr_mean", "sr_var"])
def test_model_flags_are_kept_as_a_plain_dict_with_a_readable_twin(
    pipeline: Pipeline, task: str
) -> None:
    path = pipeline.log_dir(task) / f"{task.removeprefix('sr_')}_model_args.pkl"
    flags = _read_pickle(path)
    assert isinstance(flags, dict)
    assert flags.items() >= REGRESSION_NET.items()
    assert ("last_layer_type" in flags) == (task == "sr_var")
    assert "batch_size" not in flags and "lr" not in flags
    assert json.loads(path.with_suffix(".json").read_text()) == flags


@pytest.mark.parametrize("task", LOG_DIRS)
def test_log_folder_says_how_the_run_was_made(pipeline: Pipeline, task: str) -> None:
    folder = pipeline.log_dir(task)
    assert (folder / "logs.txt").exists()
    args = json.loads((folder / "args.json").read_text())
    assert {"flags", "command", "git_revision", "versions", "device", "world_size"} <= set(args)
    assert "local_rank" not in args["flags"] and args["flags"]["log_dir"] == str(folder)
    assert {"torch", "numpy"} <= set(args["versions"])


@pytest.mark.parametrize("task", TRAININGS)
def test_training_logs_its_curves(pipeline: Pipeline, task: str) -> None:
    folder = pipeline.log_dir(task)
    (events,) = folder.glob("events.out.tfevents.*")
    content = events.read_bytes()
    for key in ("loss", "grad_norm", "param_norm", "lr", "lg_loss_scale", "samples_per_second"):
        assert key.encode() in content
    assert b"PNG" in content  # the strip of images
    lines = (folder / "logs.txt").read_text().splitlines()
    assert sum("| loss " in line for line in lines) == TRAININGS[task]


@pytest.mark.parametrize("name", TEST_NAMES)
def test_results_of_the_nets_have_the_contracts_names_shapes_and_dtypes(
    pipeline: Pipeline, name: str
) -> None:
    """Steps without leading zeros; the folder is the name, whose ``.JPEG`` was left off."""
    folder = pipeline.nets_dir / name
    assert _files(folder) == {
        "low_res.png",
        f"high_res_mean_{MEAN_STEPS}.png",
        f"high_res_mean_{MEAN_STEPS}.npy",
        f"high_res_var_{VAR_STEPS}.pkl",
        f"high_res_std_{VAR_STEPS}.npy",
        f"high_res_std_{VAR_STEPS}.png",
    }
    mean = np.load(folder / f"high_res_mean_{MEAN_STEPS}.npy", allow_pickle=False)
    variance = _read_pickle(folder / f"high_res_var_{VAR_STEPS}.pkl")
    assert isinstance(variance, np.ndarray)
    for array in (mean, variance):
        assert array.shape == SHAPE and array.dtype == np.float32 and np.isfinite(array).all()
    assert variance.min() > 0  # this net ends in exp
    for file in ("low_res.png", f"high_res_mean_{MEAN_STEPS}.png"):
        assert np.asarray(Image.open(folder / file)).shape == SHAPE


@pytest.mark.parametrize("name", TEST_NAMES)
def test_samples_have_the_contracts_names_and_sizes(pipeline: Pipeline, name: str) -> None:
    folder = pipeline.samples_dir / name
    assert _files(folder) == {
        "low_res.png",
        "moments.npz",
        "high_res_mean.png",
        "high_res_var.pkl",
        *(f"high_res_samples/sample_{i}.png" for i in range(NUM_SAMPLES)),
    }
    assert Image.open(folder / "low_res.png").size == (SMALL, SMALL)
    for path in folder.glob("high_res_samples/*.png"):
        assert np.asarray(Image.open(path)).shape == SHAPE
    with np.load(folder / "moments.npz", allow_pickle=False) as file:
        mean, variance, count = (np.array(file[key]) for key in ("mean", "variance", "count"))
    assert count == NUM_SAMPLES and mean.shape == variance.shape == SHAPE
    picture = np.asarray(Image.open(folder / "high_res_mean.png"))
    np.testing.assert_array_equal(picture, np.rint(mean).clip(0, 255))
    stored = _read_pickle(folder / "high_res_var.pkl")
    assert isinstance(stored, np.ndarray) and stored.dtype == np.float64
    np.testing.assert_allclose(stored, variance, rtol=1e-6)


def test_outputs_hold_the_test_images_and_no_others(pipeline: Pipeline) -> None:
    for folder in (pipeline.samples_dir, pipeline.nets_dir):
        assert {path.name for path in folder.iterdir() if path.name[0] != "."} == set(TEST_NAMES)


def test_verification_leaves_figures_table_and_panels(pipeline: Pipeline) -> None:
    folder = pipeline.log_dir("compare")
    figures = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert figures["num_images"] == len(TEST_NAMES) and figures["num_samples"] == NUM_SAMPLES
    assert figures["num_images_with_float_moments"] == len(TEST_NAMES)
    assert {"mse", "psnr", "nmse"} <= set(figures["mean"])
    assert {"var_error", "std_error"} <= set(figures["var"])
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + len(TEST_NAMES)
    assert {path.name for path in (folder / "panels").iterdir()} == {
        f"{name}.png" for name in TEST_NAMES
    }
    assert list(folder.glob("events.out.tfevents.*"))


def test_figures_are_those_of_the_files(pipeline: Pipeline) -> None:
    """The mean squared error, computed again from what is on disk."""
    figures = json.loads((pipeline.log_dir("compare") / "results.json").read_text(encoding="utf-8"))
    errors = []
    for name in TEST_NAMES:
        mean = np.load(pipeline.nets_dir / name / f"high_res_mean_{MEAN_STEPS}.npy")
        with np.load(pipeline.samples_dir / name / "moments.npz") as file:
            errors.append(np.mean((mean.astype(float) - file["mean"].astype(float)) ** 2))
    assert figures["mean"]["mse"] == pytest.approx(np.mean(errors), rel=1e-9)


def test_no_temporary_file_is_left(pipeline: Pipeline) -> None:
    assert [path for path in pipeline.root.rglob("*") if path.name.endswith(".tmp")] == []
