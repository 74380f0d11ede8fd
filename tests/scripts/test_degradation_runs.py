"""`--degradation` from the trainings to results: each kind, on tiny data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags
from sr_var.stored_flags import load_args
from tests.pipeline import TRAINING, Pipeline
from tests.tiny import LARGE, REGRESSION_NET, TEST_NAMES, done, run, tree, words
from utils.images.pixels import bytes_to_image, image_to_bytes, to_hwc
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


def _mean(root: Path) -> dict[str, Any]:
    return {"mean_model_path": root / "sr_mean" / "model000002.pt"}


def _both_nets(pipeline: Pipeline, root: Path, **net: Any) -> None:
    """Trains both and tests both."""
    done("sr_mean_train", _train(pipeline, root, "sr_mean", **net))
    variance = {**net, "last_layer_type": "softplus", **_mean(root)}
    done("sr_var_train", _train(pipeline, root, "sr_var", **variance))
    done("sr_mean_test", _test(pipeline, root, "sr_mean"))
    done("sr_var_test", _test(pipeline, root, "sr_var", **_mean(root)))


def _crop(pipeline: Pipeline, name: str) -> Any:
    from utils.images.dataset import Entry, TestCrops

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
    _both_nets(pipeline, tmp_path, **{**net, **sizes, **more}, degradation=degradation)
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


def _folders(root: Path) -> dict[str, Any]:
    return {"log_dir": root / "log", "model_save_dir": root / "save"}


def test_results_follow_the_checkpoint_and_the_seed(pipeline: Pipeline, tmp_path: Path) -> None:
    net = {**SUBPIXEL, **SAME, "degradation": "noise:25"}
    _both_nets(pipeline, tmp_path, **net)
    before = tree(tmp_path / "out")
    outcome = done("sr_mean_test", _test(pipeline, tmp_path, "sr_mean", degradation="blur:2"))
    assert "degradation 'noise:25' (command line 'blur:2')" in outcome.out
    assert tree(tmp_path / "out") == before
    # other noise is another image
    other = _test(pipeline, tmp_path, "sr_mean", seed=1)
    assert run("sr_mean_test", other).code == EXIT_DATA
    # a mean net of something else is no mean net of this variance
    blind = tmp_path / "blind"
    done("sr_mean_train", _train(pipeline, blind, "sr_mean", **SUBPIXEL, **SAME))
    argv = _train(pipeline, tmp_path, "sr_var_2", **net, **_mean(blind))
    outcome = run("sr_var_train", argv)
    assert outcome.code == EXIT_CHECKPOINT
    assert "noise:25" in outcome.err


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
