"""`--degradation` from the trainings to results: each kind, on tiny data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_var.baseline import quantile_file
from sr_var.degradation import bilinear_upsample
from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags
from sr_var.stored_flags import load_args
from tests.pipeline import TRAINING, Pipeline
from tests.processes import run_script_together
from tests.tiny import LARGE, REGRESSION_NET, TEST_NAMES, done, run, tree, words
from utils.images.pixels import bytes_to_image, image_to_255, image_to_bytes, to_hwc
from utils.loops.checkpoint import manifest_beside
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE
from utils.untrusted.pickles import load_array

STEPS = 2
SUBPIXEL: dict[str, Any] = {"network": "subpixel", "model_channels": 8, "num_res_blocks": 1}
UNET: dict[str, Any] = REGRESSION_NET
SAME = {"large_size": LARGE, "small_size": LARGE}


def _train(pipeline: Pipeline, root: Path, task: str, **changes: Any) -> list[str]:
    folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task}
    return words({**pipeline.data.train_flags, **TRAINING, **folders}, max_step=STEPS, **changes)


def _test(pipeline: Pipeline, root: Path, task: str, **changes: Any) -> list[str]:
    """No flag of the network or of the degradation: the checkpoint has them."""
    model = {"log_dir": root / f"log_{task}", "model_path": root / task / "model000002.pt"}
    return words({**pipeline.data.tested_flags, **model, "output_dir": root / "out"}, **changes)


def mean_flags(root: Path) -> dict[str, Any]:
    return {"mean_model_path": root / "sr_mean" / "model000002.pt"}


def both_nets(pipeline: Pipeline, root: Path, **net: Any) -> None:
    """Trains both and tests both."""
    done("sr_mean_train", _train(pipeline, root, "sr_mean", **net))
    variance = {**net, "last_layer_type": "softplus", **mean_flags(root)}
    done("sr_var_train", _train(pipeline, root, "sr_var", **variance))
    done("sr_mean_test", _test(pipeline, root, "sr_mean"))
    done("sr_var_test", _test(pipeline, root, "sr_var", **mean_flags(root)))


def _low_res(folder: Path) -> NDArray[np.float64]:
    return np.asarray(Image.open(folder / "low_res.png", formats=["PNG"])).astype(np.float64)


def _crop(pipeline: Pipeline, name: str) -> Any:
    from utils.images.crops.dataset import TestCrops
    from utils.images.listing import Entry

    item = TestCrops([Entry(name, 0)], LARGE, str(pipeline.data.data_dir))[0]
    assert item is not None
    return bytes_to_image(item.image)[None]


@pytest.mark.parametrize(
    ("net", "small_size", "degradation", "more"),
    [
        (SUBPIXEL, LARGE, "noise:5-50", {"condition_on_level": True}),
        (UNET, LARGE, "blur:1.6", {}),
        (SUBPIXEL, LARGE, "poisson:30", {}),
        (UNET, LARGE, "jpeg:30", {}),
        (UNET, LARGE, "mask:0.5", {}),
        (SUBPIXEL, LARGE, "grey", {}),
        (SUBPIXEL, LARGE, "bits:3", {}),
        (SUBPIXEL, 8, "bicubic:4", {}),
        (SUBPIXEL, 16, "blur:1.2+area+noise:5 & bicubic:2", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_nets_of_each_degradation(
    pipeline: Pipeline,
    tmp_path: Path,
    net: dict[str, Any],
    small_size: int,
    degradation: str,
    more: dict[str, Any],
) -> None:
    sizes = {"large_size": LARGE, "small_size": small_size}
    both_nets(pipeline, tmp_path, **{**net, **sizes, **more}, degradation=degradation)
    kept = degradation.replace(" ", "")
    made = load_args(tmp_path / "log_sr_mean" / "mean_model_args.pkl")
    manifest = manifest_beside(f"{tmp_path}/sr_var/model000002.pt")["network"]["flags"]
    assert made["degradation"] == manifest["degradation"] == kept
    view = View.of(MeanModelFlags(**sizes, **more, degradation=degradation))
    for name in TEST_NAMES:
        folder, crop = tmp_path / "out" / name, _crop(pipeline, name)
        assert np.load(folder / "high_res_mean_2.npy").shape == (LARGE, LARGE, 3)
        assert load_array(folder / "high_res_var_2.pkl").min() > 0
        x = view.x_of(crop, [name])[:, :3]
        if small_size == LARGE:
            shown = np.asarray(Image.open(folder / "low_res.png", formats=["PNG"]))
            np.testing.assert_array_equal(shown, to_hwc(image_to_bytes(x[0])))
    stamp = json.loads((tmp_path / "out" / ".mean_2.json").read_text(encoding="utf-8"))
    assert stamp["degradation"] == kept
    done("sr_var_verification", _verification(pipeline, tmp_path, num_samples=0))
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    assert results["degradation"] == kept
    _check_judged(pipeline, tmp_path, view, results)


def _verification(pipeline: Pipeline, root: Path, **changes: Any) -> list[str]:
    steps = {"mean_model_step": STEPS, "var_model_step": STEPS, "log_dir": root / "compare"}
    nets = {**pipeline.verification_flags, **steps, "sr_model_output_dir": root / "out"}
    return words(nets, **changes)


def _check_judged(pipeline: Pipeline, root: Path, view: View, results: dict[str, Any]) -> None:
    """The mean is held against X exactly where X is linear in Y without noise."""
    made, squares, psnr = view.degradation, [], []
    assert made is not None
    for name in TEST_NAMES:
        crop = _crop(pipeline, name)
        array = np.load(root / "out" / name / "high_res_mean_2.npy").astype(np.float64)
        mean = bytes_to_image(torch.from_numpy(array.transpose(2, 0, 1))[None])
        x, of_mean = (made.images_of(view.x_of(one, [name])) for one in (crop, mean))
        squares.append(float((127.5 * (of_mean - x)).square().mean()))
        upsampled = bilinear_upsample(x[:, :3], crop.shape[2:])
        mse = (127.5 * (upsampled - crop)).double().square().mean(dim=(0, 1, 2, 3))
        psnr.append(10 * np.log10(255**2 / float(mse)))
    assert results["high_res"]["psnr_bilinear"] == pytest.approx(np.mean(psnr), rel=1e-4)
    found = results["consistency"]["nets"]["mean_rms"]
    if made.has_consistency:
        assert found == pytest.approx(np.mean(squares) ** 0.5, rel=1e-3)
    else:
        assert found is None or not np.isfinite(found)


@pytest.mark.parametrize("network", ["unet", "subpixel"])
def test_samples_see_what_the_nets_see(pipeline: Pipeline, tmp_path: Path, network: str) -> None:
    told = {**SAME, "degradation": "mask:0.3+noise:9", "predict_residual": True}
    of_unet = {"channel_mult": "1,2", "attention_resolutions": "16", "num_heads": 2}
    denoiser = {**told, **of_unet} if network == "unet" else told | {"predict_residual": False}
    denoiser |= {"network": network, "num_channels": 8, "num_res_blocks": 1}
    process = {"diffusion_steps": 100, "predict_xstart": True}
    done("ddpm_sr_train", _train(pipeline, tmp_path, "ddpm", **denoiser, **process))
    sampling = {"timestep_respacing": "4", "num_samples_per_image": 4, "log_dir": tmp_path / "s"}
    model = {"model_path": tmp_path / "ddpm" / "model000002.pt", "output_dir": tmp_path / "samples"}
    argv = words({**pipeline.data.sample_flags, **sampling, **model})
    done("ddpm_sr_sample", argv)
    before = tree(tmp_path / "samples")
    done("ddpm_sr_sample", argv)
    assert tree(tmp_path / "samples") == before
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="mask:0.3+noise:9")
    for name in TEST_NAMES:
        seen = [tmp_path / of / name / "low_res.png" for of in ("samples", "out")]
        assert seen[0].read_bytes() == seen[1].read_bytes()
    judge = {"ddpm_sr_output_dir": tmp_path / "samples", "num_samples": 4}
    outcome = done("sr_var_verification", _verification(pipeline, tmp_path, **judge))
    assert "mask:0.3+noise:9" in outcome.out
    report = (tmp_path / "compare" / "report.html").read_text(encoding="utf-8")
    assert '["high-res","input","mean of the net"]' in report.replace('", "', '","')
    # samples of other noise are of another image
    done("ddpm_sr_sample", [*argv, *words({"seed": 1, "output_dir": tmp_path / "others"})])
    judge["ddpm_sr_output_dir"] = tmp_path / "others"
    assert run("sr_var_verification", _verification(pipeline, tmp_path, **judge)).code == EXIT_DATA


def test_calibration_and_prediction_of_noisy_images(pipeline: Pipeline, tmp_path: Path) -> None:
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="noise:25")
    steps = {"mean_model_step": STEPS, "var_model_step": STEPS, "large_size": LARGE}
    nets = {**pipeline.data.tested_flags, **steps, "sr_model_output_dir": tmp_path / "out"}
    done(
        "sr_calibrate", words(nets, output_dir=tmp_path / "cal", level=0.5, log_dir=tmp_path / "l")
    )
    assert (tmp_path / "cal" / "calibration.json").exists()
    # an image that is given is X: the low-res picture of a test has the mean of that test
    given, out = tmp_path / "out" / TEST_NAMES[1] / "low_res.png", tmp_path / "predicted"
    paths = {**mean_flags(tmp_path), "var_model_path": tmp_path / "sr_var" / "model000002.pt"}
    done("sr_predict", words(paths, input=given, output_dir=out, log_dir=tmp_path / "p"))
    (found,) = out.rglob("*mean*.npy")
    tested = np.load(tmp_path / "out" / TEST_NAMES[1] / "high_res_mean_2.npy")
    assert np.abs(np.load(found) - tested).max() < 100  # clipped and rounded noise
    assert np.abs(np.load(found) - tested).mean() < 5


def test_intervals_of_a_mask_are_those_of_hidden_pixels(pipeline: Pipeline, tmp_path: Path) -> None:
    """Of a pixel that X shows there is nothing to predict."""
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="mask:0.4")
    steps = {"mean_model_step": STEPS, "var_model_step": STEPS, "large_size": LARGE}
    nets = {**pipeline.data.tested_flags, **steps, "sr_model_output_dir": tmp_path / "out"}
    made = tmp_path / "cal" / "calibration.json"
    done("sr_calibrate", words(nets, output_dir=made.parent, level=0.5, log_dir=tmp_path / "l"))
    calibration = json.loads(made.read_text(encoding="utf-8"))
    view = View.of(MeanModelFlags(**SAME, degradation="mask:0.4"))
    scores = []
    for name in TEST_NAMES:
        crop, folder = _crop(pipeline, name), tmp_path / "out" / name
        is_hidden = (view.x_of(crop, [name])[0, 3] == 0).numpy()
        assert 0.3 < is_hidden.mean() < 0.5
        error = np.load(folder / "high_res_mean_2.npy") - 127.5 * (to_hwc(crop[0]) + 1)
        variance = np.maximum(load_array(folder / "high_res_var_2.pkl"), 1 / 12)
        scores.append((np.abs(error) / np.sqrt(variance))[is_hidden])
    assert calibration["pixels"] == "hidden"
    outside = np.mean([(one > calibration["factor"]).mean() for one in scores])
    assert calibration["found"]["risk"] == pytest.approx(outside, abs=1e-3)
    outcome = done("sr_var_verification", _verification(pipeline, tmp_path, num_samples=0))
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    inside = np.mean([(one <= 1.959964).mean() for one in scores])
    assert results["calibration"]["nets"]["coverage_95"] == pytest.approx(inside, abs=1e-3)
    assert results["pixels"] == "hidden"
    assert "hidden pixels in the 95 % interval" in outcome.out
    assert "judged by the hidden pixels." in outcome.out.replace("\n", " ")
    # what was calibrated on all pixels is not for hidden ones
    calibration.pop("pixels")
    calibration["images"] = []
    made.write_text(json.dumps(calibration), encoding="utf-8")
    argv = _verification(pipeline, tmp_path, num_samples=0, calibration=made)
    outcome = run("sr_var_verification", argv)
    given = {**mean_flags(tmp_path), "var_model_path": tmp_path / "sr_var" / "model000002.pt"}
    given |= {"input": folder / "low_res.png", "output_dir": tmp_path / "no", "calibration": made}
    predicted = run("sr_predict", words(given, log_dir=tmp_path / "l"))
    for one in (outcome, predicted):
        assert one.code == EXIT_DATA
        assert str(made) in one.err and "sr_calibrate.py" in one.err


def test_quantiles_of_a_mask_are_judged_by_hidden_pixels(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    net = {**SUBPIXEL, **SAME, "degradation": "mask:0.4", "objective": "quantile"}
    done("sr_baseline_train", _train(pipeline, tmp_path, "base", **net))
    done("sr_baseline_test", _test(pipeline, tmp_path, "base"))
    view = View.of(MeanModelFlags(**SAME, degradation="mask:0.4"))
    for name in TEST_NAMES:
        y, folder = image_to_255(_crop(pipeline, name))[0].numpy(), tmp_path / "out" / name
        hidden = view.hidden([name])
        assert hidden is not None
        errors = json.loads((folder / f"quantile_errors_{STEPS}.json").read_text(encoding="utf-8"))
        for level, found in errors.items():
            quantile = np.load(folder / quantile_file(float(level), STEPS))
            below = (to_hwc(torch.from_numpy(y)) < quantile)[hidden[0, 0].numpy()]
            assert found["coverage"] == pytest.approx(below.mean(), abs=1e-3)


def test_a_shift_of_the_degradation_is_shown_and_said(pipeline: Pipeline, tmp_path: Path) -> None:
    """X is of the degradation of the test, and results, calibration and verification say so."""
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="noise:10")
    shifted = {"test_degradation": "noise:60", "output_dir": tmp_path / "shifted"}
    own_folder = _test(pipeline, tmp_path, "sr_mean", test_degradation="noise:60")
    refused = run("sr_mean_test", own_folder)
    assert refused.code == EXIT_DATA
    assert "--degradation noise:10, here it is --test_degradation noise:60" in refused.err
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", **shifted))
    done("sr_var_test", _test(pipeline, tmp_path, "sr_var", **mean_flags(tmp_path), **shifted))
    assert run("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", **shifted)).code == 0
    for name in TEST_NAMES:
        shown = _low_res(tmp_path / "shifted" / name)
        own = _low_res(tmp_path / "out" / name)
        y = np.clip(to_hwc(image_to_255(_crop(pipeline, name)[0])), 0, 255)
        # the same noise, six times as strong, where it is not clipped
        is_inside = (shown > 0) & (shown < 255) & (own > 0) & (own < 255)
        assert np.abs((shown - y) - 6 * (own - y))[is_inside].max() < 6
    nets = {"sr_model_output_dir": tmp_path / "shifted", "log_dir": tmp_path / "judged"}
    steps = {"mean_model_step": STEPS, "var_model_step": STEPS, "large_size": LARGE}
    judged = words({**pipeline.data.tested_flags, **steps, **nets}, num_samples=0)
    out = done("sr_var_verification", judged).out
    assert "trained on --degradation noise:10 and see another one here, noise:60" in out
    results = json.loads((tmp_path / "judged" / "results.json").read_text(encoding="utf-8"))
    assert results["degradation"] == "noise:60"
    assert results["trained_degradation"] == "noise:10"
    cal = words({**pipeline.data.tested_flags, **steps, **nets}, level=0.5, output_dir=tmp_path)
    assert "of --degradation noise:60, for which they" in done("sr_calibrate", cal).out
    record = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    assert record["test_degradation"] == "noise:60"


def test_samples_of_another_degradation_join_results_of_it(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Resuming and verification hold them to what they were drawn of."""
    denoiser = {**SAME, "network": "subpixel", "num_channels": 8, "num_res_blocks": 1}
    process = {"diffusion_steps": 100, "predict_xstart": True, "degradation": "noise:10"}
    done("ddpm_sr_train", _train(pipeline, tmp_path, "ddpm", **denoiser, **process))
    sampling = {"timestep_respacing": "4", "num_samples_per_image": 4, "log_dir": tmp_path / "s"}
    model = {"model_path": tmp_path / "ddpm" / "model000002.pt", "output_dir": tmp_path / "samples"}
    own = {**pipeline.data.sample_flags, **sampling, **model}
    shifted = {"test_degradation": "noise:60"}
    out = done("ddpm_sr_sample", words({**own, **shifted})).out
    assert "trained on --degradation noise:10, the test is on noise:60" in out
    before = tree(tmp_path / "samples")
    done("ddpm_sr_sample", words({**own, **shifted}))
    assert tree(tmp_path / "samples") == before
    for changes in ({}, {"test_degradation": "noise:20"}, {"test_degradation": "noise:10"}):
        refused = run("ddpm_sr_sample", words({**own, **changes}))
        assert refused.code == EXIT_DATA and "(there: 'noise:60')" in refused.err
    assert tree(tmp_path / "samples") == before
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="noise:10")
    judge = {"ddpm_sr_output_dir": tmp_path / "samples", "num_samples": 4}
    refused = run("sr_var_verification", _verification(pipeline, tmp_path, **judge))
    assert refused.code == EXIT_DATA
    assert "drawn of --degradation noise:60, the nets saw noise:10" in refused.err
    shifted["output_dir"] = tmp_path / "shifted"
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", **shifted))
    done("sr_var_test", _test(pipeline, tmp_path, "sr_var", **mean_flags(tmp_path), **shifted))
    for name in TEST_NAMES:
        seen = [tmp_path / of / name / "low_res.png" for of in ("samples", "shifted")]
        assert seen[0].read_bytes() == seen[1].read_bytes()
    judge["sr_model_output_dir"] = tmp_path / "shifted"
    out = done("sr_var_verification", _verification(pipeline, tmp_path, **judge)).out
    assert "The samples' network was trained on --degradation noise:10." in out.replace("\n", " ")
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    assert results["samples_trained_degradation"] == "noise:10"
    base = {**model, **sampling, **shifted, "base_samples": tmp_path, "output_dir": tmp_path / "b"}
    refused = run("ddpm_sr_sample", words(base))
    assert refused.code == EXIT_USAGE and "--test_degradation" in refused.err


@pytest.mark.parametrize(
    ("test_degradation", "code", "named"),
    [
        ("mask:0.5", EXIT_USAGE, "4 channels"),
        ("nois:5", EXIT_USAGE, "did you mean noise"),
        ("area:2", EXIT_USAGE, "make them fit"),
        ("measured", EXIT_USAGE, "measured pairs"),
        ("mask:none.png", EXIT_DATA, "no such file"),
    ],
)
def test_what_no_test_can_show_is_one_line(
    pipeline: Pipeline, tmp_path: Path, test_degradation: str, code: int, named: str
) -> None:
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **SUBPIXEL, **SAME))
    argv = _test(pipeline, tmp_path, "sr_mean", test_degradation=test_degradation)
    outcome = run("sr_mean_test", argv)
    assert outcome.code == code, outcome.err
    assert named in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_baseline_sees_it_too(pipeline: Pipeline, tmp_path: Path) -> None:
    net = {**UNET, **SAME, "degradation": "mask:0.5&grey", "predict_residual": True}
    done("sr_baseline_train", _train(pipeline, tmp_path, "base", **net))
    done("sr_baseline_test", _test(pipeline, tmp_path, "base"))
    done("sr_var_verification", _verification(pipeline, tmp_path, num_samples=0))
    results = json.loads((tmp_path / "compare" / "results.json").read_text(encoding="utf-8"))
    assert results["degradation"] == "mask:0.5&grey"
    assert results["consistency"]["nets"]["mean_rms"] > 0
    oracle = _test(pipeline, tmp_path, "base", truth="oracle", output_dir=tmp_path / "new")
    assert run("sr_baseline_test", oracle).code == EXIT_USAGE


@pytest.mark.dist
def test_two_processes_see_what_one_sees(pipeline: Pipeline, tmp_path: Path) -> None:
    """The same steps of the same batches: noise is a function of the position in the stream."""
    net = {**SUBPIXEL, **SAME, "degradation": "noise:5-50+mask:0.2", "microbatch": -1}
    for ranks, batch_size in ((1, 2), (2, 1)):
        folders = {"log_dir": tmp_path / f"log{ranks}", "model_save_dir": tmp_path / f"m{ranks}"}
        argv = words({**pipeline.data.train_flags, **TRAINING, **net, **folders})
        argv += words(max_step=STEPS, batch_size=batch_size)
        if ranks == 1:
            done("sr_mean_train", argv)
        else:
            run_script_together("sr_mean_train", argv)
    states = [
        torch.load(tmp_path / f"m{ranks}" / "opt000002.pt", weights_only=True)["state"]
        for ranks in (1, 2)
    ]
    for one, two in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(one["exp_avg"], two["exp_avg"], rtol=0, atol=1e-6)


def test_a_mask_of_a_file_from_training_to_refusals(pipeline: Pipeline, tmp_path: Path) -> None:
    pixels = np.full((LARGE, LARGE), 255, np.uint8)
    pixels[8:20, 8:20] = 0
    path = tmp_path / "mask.png"
    Image.fromarray(pixels).save(path)
    net = {**SUBPIXEL, **SAME, "degradation": f"mask:{path}"}
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **net))
    done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean"))
    shown = np.asarray(Image.open(tmp_path / "out" / TEST_NAMES[0] / "low_res.png"))
    assert set(np.unique(shown[8:20, 8:20])) == {128}
    _judge_mask(pipeline, tmp_path, net, pixels > 0)
    # goes on with the same words, and with a mask that holds something else it does not
    again = {**net, "resume_checkpoint": "auto", "strict_flags": True}
    done("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **again))
    Image.fromarray(255 - pixels).save(path)
    os.utime(path, ns=(1, 1))
    for script, argv in (
        ("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", output_dir=tmp_path / "new")),
        ("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **again)),
    ):
        outcome = run(script, argv)
        assert outcome.code in (EXIT_CHECKPOINT, EXIT_DATA), outcome.err
        assert str(path) in outcome.err
    wrong = {**net, **_folders(tmp_path / "wrong")}
    Image.fromarray(pixels[:16]).save(path)
    outcome = run("sr_mean_train", _train(pipeline, tmp_path, "sr_mean", **wrong))
    assert outcome.code == EXIT_DATA
    assert f"mask:{path}" in outcome.err


def _judge_mask(
    pipeline: Pipeline, root: Path, net: dict[str, Any], is_seen: NDArray[np.bool_]
) -> None:
    """Only pixels that are seen are held against the input."""
    done("sr_var_train", _train(pipeline, root, "sr_var", **net, **mean_flags(root)))
    done("sr_var_test", _test(pipeline, root, "sr_var", **mean_flags(root)))
    done("sr_var_verification", _verification(pipeline, root, num_samples=0))
    results = json.loads((root / "compare" / "results.json").read_text(encoding="utf-8"))
    squares = []
    for name in TEST_NAMES:
        mean = np.load(root / "out" / name / "high_res_mean_2.npy")
        crop = 127.5 * (to_hwc(_crop(pipeline, name)[0]) + 1)
        squares.append(np.mean((is_seen[..., None] * (mean - crop)) ** 2))
    found = results["consistency"]["nets"]["mean_rms"]
    assert found == pytest.approx(np.mean(squares) ** 0.5, rel=1e-3, abs=1e-4)


def _folders(root: Path) -> dict[str, Any]:
    return {"log_dir": root / "log", "model_save_dir": root / "save"}


def test_results_follow_the_checkpoint_and_the_seed(pipeline: Pipeline, tmp_path: Path) -> None:
    """Also where much of the noise lies outside of what a picture shows."""
    net = {**SUBPIXEL, **SAME, "degradation": "noise:200"}
    both_nets(pipeline, tmp_path, **net)
    before = tree(tmp_path / "out")
    outcome = done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", degradation="blur:2"))
    assert "degradation 'noise:200' (command line 'blur:2')" in outcome.out
    assert tree(tmp_path / "out") == before
    # other noise is another image
    other = _test(pipeline, tmp_path, "sr_mean", seed=1)
    assert run("sr_mean_test", other).code == EXIT_DATA
    # a mean net of something else is no mean net of this variance
    blind = tmp_path / "blind"
    done("sr_mean_train", _train(pipeline, blind, "sr_mean", **SUBPIXEL, **SAME))
    argv = _train(pipeline, tmp_path, "sr_var_2", **net, **mean_flags(blind))
    outcome = run("sr_var_train", argv)
    assert outcome.code == EXIT_CHECKPOINT
    assert "noise:200" in outcome.err


@pytest.mark.parametrize(
    ("degradation", "code", "named"),
    [
        ("nois:25", EXIT_USAGE, "did you mean noise"),
        ("jpeg:0", EXIT_USAGE, "1 to 100"),
        ("noise:-1", EXIT_USAGE, "from 0 on"),
        ("area:2", EXIT_USAGE, "--small_size"),
        ("mask:none.png", EXIT_DATA, "no such file"),
    ],
)
def test_what_is_no_degradation_is_one_line(
    pipeline: Pipeline, tmp_path: Path, degradation: str, code: int, named: str
) -> None:
    argv = _train(pipeline, tmp_path, "sr_mean", **SUBPIXEL, **SAME, degradation=degradation)
    outcome = run("sr_mean_train", argv)
    assert outcome.code == code, outcome.err
    assert f"--degradation {degradation}" in outcome.err.replace("'", "")
    assert named in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
