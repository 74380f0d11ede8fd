"""`--network subpixel` and `--consistent True` from the trainings to the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_var.stored_flags import load_args
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import LARGE, REGRESSION_NET, SMALL, TEST_NAMES, done, run, tree, words
from utils.loops.checkpoint import manifest_beside
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE
from utils.untrusted.pickles import load_array

NET: dict[str, Any] = {
    "network": "subpixel",
    "large_size": LARGE,
    "small_size": SMALL,
    "model_channels": 8,
    "num_res_blocks": 1,
}


def _train(pipeline: Pipeline, root: Path, task: str, **changes: Any) -> list[str]:
    flags = {
        **NET,
        **pipeline.data.train_flags,
        **TRAINING,
        "max_step": 3,
        "lr": 0.01,
        "log_dir": root / f"log_{task}",
        "model_save_dir": root / task,
    }
    return words(flags, **changes)


def _test(pipeline: Pipeline, root: Path, task: str, **changes: Any) -> list[str]:
    """No flag of the network: the checkpoint has them."""
    flags = {
        **pipeline.data.tested_flags,
        "log_dir": root / f"log_{task}",
        "model_path": root / task / "model000003.pt",
        "output_dir": root / "out",
        "batch_size": 2,
    }
    return words(flags, **changes)


def _mean(root: Path) -> dict[str, Any]:
    return {"mean_model_path": root / "sr_mean" / "model000003.pt"}


def test_both_nets_from_training_to_verdict(pipeline: Pipeline, tmp_path: Path) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", consistent=True))
    args = load_args(tmp_path / "log_sr_mean" / "mean_model_args.pkl")
    assert args["network"] == "subpixel" and args["consistent"] is True
    variance = {"last_layer_type": "softplus", "loss": "itakura_saito", **_mean(tmp_path)}
    done("sr_var_train", _train(pipeline, tmp_path, "sr_var", **variance))
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean"))
    done("sr_var_test", _test(pipeline, tmp_path, "sr_var", **_mean(tmp_path)))
    for name in TEST_NAMES:
        folder, theirs = tmp_path / "out" / name, pipeline.nets_dir / name
        mean = np.load(folder / "high_res_mean_3.npy")
        assert mean.shape == (LARGE, LARGE, 3)
        assert load_array(folder / "high_res_var_3.pkl").min() > 0
        # the low-res image beside them is that of a U-Net
        low_res = "low_res.png"
        assert (folder / low_res).read_bytes() == (theirs / low_res).read_bytes()
    before = tree(tmp_path / "out")
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean"))  # nothing is left to do
    assert tree(tmp_path / "out") == before
    steps = {"mean_model_step": 3, "var_model_step": 3, "sr_model_output_dir": tmp_path / "out"}
    flags = {**pipeline.verification_flags, **steps, "log_dir": tmp_path / "compare"}
    done("sr_var_verification", words(flags))
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    assert results["num_images"] == 3


@pytest.mark.parametrize("network", ["unet", "subpixel"])
def test_written_mean_is_consistent(pipeline: Pipeline, tmp_path: Path, network: str) -> None:
    """The block means of the results of both kinds are the low-res image, to rounding."""
    net = NET if network == "subpixel" else {**REGRESSION_NET, "network": "unet"}
    argv = words({**pipeline.data.train_flags, **TRAINING, **net})
    folders = {"log_dir": tmp_path / "log_sr_mean", "model_save_dir": tmp_path / "sr_mean"}
    done("sr_mean_train", argv + words(folders, max_step=3, lr=0.1, consistent=True))
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean"))
    factor = LARGE // SMALL
    for name in TEST_NAMES:
        mean = np.load(tmp_path / "out" / name / "high_res_mean_3.npy").astype(np.float64)
        truth = _low_res(pipeline, name)
        blocks = mean.reshape(SMALL, factor, SMALL, factor, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(blocks, truth, rtol=0, atol=1e-3)


def _low_res(pipeline: Pipeline, name: str) -> np.ndarray[Any, Any]:
    from sr_var.base_dataset import load_test_entries
    from sr_var.flags.scripts import TestDataFlags
    from utils.images.crops.dataset import TestCrops

    flags = TestDataFlags(
        data_dir=str(pipeline.data.data_dir), data_info_dict_path=str(pipeline.data.test_info)
    )
    entries = load_test_entries(flags, (LARGE, SMALL), lambda line: None)
    (entry,) = (one for one in entries if one.name == name)
    item = TestCrops.from_flags([entry], LARGE, flags)[0]
    assert item is not None
    factor = LARGE // SMALL
    image = item.image.double().reshape(3, SMALL, factor, SMALL, factor).mean(dim=(2, 4))
    return image.permute(1, 2, 0).numpy()


def test_variance_net_of_one_kind_stands_on_a_mean_net_of_the_other(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean"))
    unet = {**REGRESSION_NET, **pipeline.data.train_flags, **TRAINING, "max_step": 3}
    folders = {"log_dir": tmp_path / "log_sr_var", "model_save_dir": tmp_path / "sr_var"}
    done("sr_var_train", words(unet, **folders, **_mean(tmp_path)))
    done("sr_var_test", _test(pipeline, tmp_path, "sr_var", **_mean(tmp_path)))
    theirs = pipeline.mean_net_flags
    changes = {"log_dir": tmp_path / "log_b", "model_save_dir": tmp_path / "b", **theirs}
    done("sr_var_train", _train(pipeline, tmp_path, "b", **changes))


@pytest.mark.parametrize("more", [{}, {"use_bf16": True}, {"ema_rate": "0.9"}])
def test_resumed_run_ends_with_the_same_weights(
    pipeline: Pipeline, tmp_path: Path, more: dict[str, Any]
) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path / "whole", "sr_mean", **more))
    for max_step in (1, 3):
        changes = {"max_step": max_step, "resume_checkpoint": "auto", **more}
        done("sr_mean_train", _train(pipeline, tmp_path / "parts", "sr_mean", **changes))
    for file in ("model000003.pt", "opt000003.pt"):
        one, two = (tmp_path / run_ / "sr_mean" / file for run_ in ("whole", "parts"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("objective", ["nll", "quantile"])
def test_baseline(pipeline: Pipeline, tmp_path: Path, objective: str) -> None:
    is_mean = {"consistent": True} if objective == "nll" else {}
    argv = _train(pipeline, tmp_path, "sr_baseline", objective=objective, **is_mean)
    done("sr_baseline_train", argv)
    done("sr_baseline_test", _test(pipeline, tmp_path, "sr_baseline"))
    for name in TEST_NAMES:
        assert load_array(tmp_path / "out" / name / "high_res_var_3.pkl").min() >= 0
        if objective == "nll":
            mean = np.load(tmp_path / "out" / name / "high_res_mean_3.npy").astype(np.float64)
            blocks = mean.reshape(SMALL, 4, SMALL, 4, 3).mean(axis=(1, 3))
            np.testing.assert_allclose(blocks, _low_res(pipeline, name), rtol=0, atol=1e-3)


def test_cross_fit(pipeline: Pipeline, tmp_path: Path) -> None:
    for fold in range(2):
        folders = {"log_dir": tmp_path / f"l{fold}", "model_save_dir": tmp_path / f"m{fold}"}
        changes = {**folders, "cross_fit": 2, "fold": fold}
        done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **changes))
    pattern = {"mean_model_path": f"{tmp_path}/m{{fold}}/model000003.pt", "cross_fit": 2}
    done("sr_var_train", _train(pipeline, tmp_path, "sr_var", **pattern))
    done("sr_var_test", _test(pipeline, tmp_path, "sr_var", **pattern))


def test_dry_run_writes_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    said = done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", dry_run=True)).out
    assert "parameters" in said and not (tmp_path / "sr_mean").exists()


def test_preset_is_a_network_and_what_is_given_beside_it_goes_first(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The documented sizes, made small enough to run by flags of the command line."""
    small = {"large_size": LARGE, "small_size": SMALL, "model_channels": 8, "num_res_blocks": 1}
    data = {**pipeline.data.train_flags, **TRAINING, "max_step": 3, "preset": "subpixel_64_256"}
    folders = {"log_dir": tmp_path / "log_sr_mean", "model_save_dir": tmp_path / "sr_mean"}
    done("sr_mean_train", words(small, data, folders))
    stored = load_args(tmp_path / "log_sr_mean" / "mean_model_args.pkl")
    assert stored["network"] == "subpixel" and stored["consistent"] is True
    assert stored["model_channels"] == 8
    folders = {"log_dir": tmp_path / "log_sr_var", "model_save_dir": tmp_path / "sr_var"}
    done("sr_var_train", words(small, data, folders, _mean(tmp_path)))
    stored = load_args(tmp_path / "log_sr_var" / "var_model_args.pkl")
    assert stored["network"] == "subpixel" and stored["last_layer_type"] == "softplus"
    manifest = manifest_beside(str(tmp_path / "sr_var" / "model000003.pt"))
    assert manifest["state"]["loss"] == "itakura_saito"


DENOISER: dict[str, Any] = {
    "network": "subpixel",
    "large_size": LARGE,
    "small_size": SMALL,
    "num_channels": 8,
    "num_res_blocks": 1,
    "predict_xstart": True,
    "noise_schedule": "shifted_cosine",
    "diffusion_steps": 20,
}


def _train_denoiser(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    folders = {"log_dir": root / "log_ddpm", "model_save_dir": root / "ddpm"}
    flags = {**DENOISER, **pipeline.data.train_flags, **TRAINING, **folders, "max_step": 3}
    return words(flags, **changes)


@pytest.mark.parametrize("more", [{}, {"use_bf16": True}, {"optimizer": "muon"}])
def test_denoiser_from_training_to_samples(
    pipeline: Pipeline, tmp_path: Path, more: dict[str, Any]
) -> None:
    """Stopped and resumed it ends with the same weights; the checkpoint tells the sampler all."""
    done("ddpm_sr_train", _train_denoiser(pipeline, tmp_path, lr=0.01, **more))
    parts = {"log_dir": tmp_path / "log_parts", "model_save_dir": tmp_path / "parts", **more}
    for max_step in (1, 3):
        changes = {**parts, "max_step": max_step, "lr": 0.01, "resume_checkpoint": "auto"}
        done("ddpm_sr_train", _train_denoiser(pipeline, tmp_path, **changes))
    model = tmp_path / "ddpm" / "model000003.pt"
    assert model.read_bytes() == (tmp_path / "parts" / "model000003.pt").read_bytes()
    sample = {**pipeline.data.sample_flags, "model_path": model, "num_samples_per_image": 2}
    folders = {"log_dir": tmp_path / "log", "output_dir": tmp_path / "samples"}
    how = {"sampler": "dpmpp_2m_sde", "timestep_respacing": "5"}
    done("ddpm_sr_sample", words(sample, folders, how))
    for name in TEST_NAMES:
        moments = np.load(tmp_path / "samples" / name / "moments.npz")
        blocks = moments["mean"].reshape(SMALL, LARGE // SMALL, SMALL, LARGE // SMALL, 3)
        means, truth = blocks.mean(axis=(1, 3)), _low_res(pipeline, name)
        # clipping to [0, 255] apart, every sample is an image of this low-res image
        assert np.abs(means - truth).max() < (0.5 if truth.max() < 250 and truth.min() > 5 else 9)


def test_denoiser_is_planned_and_tried(pipeline: Pipeline, tmp_path: Path) -> None:
    said = done("ddpm_sr_train", _train_denoiser(pipeline, tmp_path, dry_run=True)).out
    assert "parameters" in said and not (tmp_path / "ddpm").exists()
    nets = {"net_kind": "subpixel", "net_channels": 8, "num_rounds": 1, "batch_size": "auto"}
    said = done("sr_plan", words(DENOISER, nets, log_dir=tmp_path / "plan")).out
    assert "s an evaluation of the upsampler" in said


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"predict_xstart": False}, "--predict_xstart True"),
        ({"learn_sigma": True}, "--learn_sigma False"),
        ({"rescale_timesteps": True}, "--rescale_timesteps False"),
        ({"class_cond": True}, "--class_cond"),
        ({"channel_mult": "1,2"}, "--channel_mult"),
        ({"use_scale_shift_norm": False}, "--use_scale_shift_norm"),
        ({"small_size": 7}, "--small_size"),
        ({"noise_schedule": "shifted"}, "--noise_schedule"),
        ({"noise_schedule": "linear"}, "give more steps"),
    ],
)
def test_flags_that_make_no_denoiser_are_refused(
    pipeline: Pipeline, tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    outcome = run("ddpm_sr_train", _train_denoiser(pipeline, tmp_path, **changes))
    assert outcome.code == EXIT_USAGE and part in outcome.err
    assert "Traceback" not in outcome.err and not (tmp_path / "ddpm").exists()


def test_denoisers_of_two_kinds_are_not_mixed(pipeline: Pipeline, tmp_path: Path) -> None:
    done("ddpm_sr_train", _train_denoiser(pipeline, tmp_path, max_step=1))
    model = tmp_path / "ddpm" / "model000001.pt"
    sample = {**pipeline.data.sample_flags, "num_samples_per_image": 1}
    folders = {"log_dir": tmp_path / "log", "output_dir": tmp_path / "samples"}
    for path, network in ((model, "unet"), (pipeline.ddpm_model, "subpixel")):
        argv = words(sample, folders, model_path=path, network=network)
        outcome = run("ddpm_sr_sample", argv)
        assert outcome.code == EXIT_CHECKPOINT and "network" in outcome.err, outcome.err
        assert not list((tmp_path / "samples").rglob("*.png"))


@pytest.mark.parametrize(
    ("script", "changes", "part"),
    [
        ("sr_mean_train", {"channel_mult": "1,2"}, "--channel_mult"),
        ("sr_mean_train", {"dropout": 0.1}, "--dropout"),
        ("sr_mean_train", {"num_res_blocks": 0}, "--num_res_blocks"),
        ("sr_mean_train", {"network": "vit"}, "--network"),
        ("sr_mean_train", {"small_size": 7}, "--small_size"),
        ("sr_mean_train", {"small_size": LARGE, "consistent": True}, "--consistent"),
        ("sr_var_train", {"consistent": True}, "--consistent"),
        ("sr_baseline_train", {"objective": "quantile", "consistent": True}, "--consistent"),
    ],
)
def test_flags_that_make_no_net_are_refused(
    pipeline: Pipeline, tmp_path: Path, script: str, changes: dict[str, Any], part: str
) -> None:
    mean = {**pipeline.mean_net_flags} if script == "sr_var_train" else {}
    outcome = run(script, _train(pipeline, tmp_path, "refused", **mean, **changes))
    assert outcome.code == EXIT_USAGE and part in outcome.err
    assert "Traceback" not in outcome.err and not (tmp_path / "refused").exists()


def test_run_of_another_kind_is_not_resumed(pipeline: Pipeline, tmp_path: Path) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", max_step=1))
    before = tree(tmp_path / "sr_mean")
    flags = {**REGRESSION_NET, **pipeline.data.train_flags, **TRAINING, "max_step": 3}
    folders = {"log_dir": tmp_path / "log_sr_mean", "model_save_dir": tmp_path / "sr_mean"}
    argv = words(flags, **folders, network="unet", resume_checkpoint="auto", strict_flags=True)
    outcome = run("sr_mean_train", argv)
    assert outcome.code == EXIT_CHECKPOINT and "network" in outcome.err
    assert tree(tmp_path / "sr_mean") == before


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"network": "unet", "channel_mult": "1,2"}, ["--network subpixel"]),
        ({"model_channels": 16}, ["--model_channels (--num_channels) 8"]),
        ({"num_res_blocks": 2}, ["--num_res_blocks 1"]),
        ({"small_size": 16}, ["a factor of 2 between high-res and low-res side"]),
    ],
)
def test_bare_weights_that_do_not_fit_are_explained(
    pipeline: Pipeline, tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", max_step=1))
    bare = _bare(tmp_path / "sr_mean" / "model000001.pt", tmp_path)
    outcome = run("sr_mean_train", _train(pipeline, tmp_path, "b", init_from=bare, **changes))
    assert outcome.code == EXIT_CHECKPOINT and str(bare) in outcome.err
    assert all(part in outcome.err for part in parts), outcome.err


def test_bare_weights_of_a_unet_are_named(pipeline: Pipeline, tmp_path: Path) -> None:
    bare = _bare(pipeline.mean_model, tmp_path)
    outcome = run("sr_mean_train", _train(pipeline, tmp_path, "b", init_from=bare))
    assert outcome.code == EXIT_CHECKPOINT and "--network" in outcome.err


def _bare(path: Path, folder: Path) -> Path:
    """The weights as another tool writes them, without a manifest."""
    bare = folder / "theirs" / "model000001.pt"
    bare.parent.mkdir()
    torch.save(torch.load(path, weights_only=True), bare)
    return bare


def test_the_kind_of_blocks_is_stored_and_followed(pipeline: Pipeline, tmp_path: Path) -> None:
    own = {"res_block": "pointwise", "degradation": "area & mask:0.5"}
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **own, max_step=1))
    stored = manifest_beside(str(tmp_path / "sr_mean" / "model000001.pt"))["network"]["flags"]
    assert stored["res_block"] == "pointwise"
    args = load_args(tmp_path / "log_sr_mean" / "mean_model_args.pkl")
    assert args["res_block"] == "pointwise"
    path = {"model_path": tmp_path / "sr_mean" / "model000001.pt"}
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", **path))
    outcome = run("sr_mean_train", _train(pipeline, tmp_path, "other", network="unet", **own))
    assert outcome.code == EXIT_USAGE and "--res_block pointwise means nothing" in outcome.err
    assert "Traceback" not in outcome.err
