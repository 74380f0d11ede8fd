"""sr_predict.py: the files of each image, what is said, stop and resume, several processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.flags.scripts import MeanModelFlags, VarModelFlags
from sr_var.predict import run as predict_run
from sr_var.stored_flags import save_model_args
from tests.sr_var.predict.conftest import Nets
from tests.sr_var.predict.pairs import FACTOR, SUBPIXEL
from tests.tiny import done, photo, run, tree, words
from utils.files.lock import try_lock
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_STOPPED, EXIT_USAGE

ARRAYS = ("mean", "std", "lower", "upper")


def _argv(nets: Nets, tmp_path: Path, place: Path, **changes: Any) -> list[str]:
    folders = {"output_dir": tmp_path / "out", "log_dir": tmp_path / "log", "input": place}
    return words({**nets.flags, **folders, **changes})


def _arrays(tmp_path: Path, name: str) -> dict[str, Any]:
    return {kind: np.load(tmp_path / "out" / f"{name}_{kind}.npy") for kind in ARRAYS}


@pytest.mark.parametrize("kind", ["subpixel_nets", "unet_nets"])
def test_every_image_gets_pictures_and_arrays(
    request: pytest.FixtureRequest, tmp_path: Path, photos: Path, kind: str
) -> None:
    nets: Nets = request.getfixturevalue(kind)
    said = done("sr_predict", _argv(nets, tmp_path, photos, level=0.5)).out
    z = NormalDist().inv_cdf(0.75)
    for name, (h, w) in {"a": (13, 9), "b": (8, 8), "below/c": (11, 20)}.items():
        arrays = _arrays(tmp_path, name)
        shape = (FACTOR * h, FACTOR * w, 3)
        assert {array.shape for array in arrays.values()} == {shape}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        half = z * arrays["std"]
        np.testing.assert_allclose(arrays["upper"] - arrays["mean"], half, atol=1e-3)
        np.testing.assert_allclose(arrays["mean"] - arrays["lower"], half, atol=1e-3)
        picture = np.asarray(Image.open(tmp_path / "out" / f"{name}_mean.png"))
        np.testing.assert_array_equal(
            picture, np.clip(np.rint(arrays["mean"]), 0, 255).astype(np.uint8)
        )
        std = Image.open(tmp_path / "out" / f"{name}_std.png")
        assert std.width > shape[1] and std.height >= shape[0]  # the scale stands beside it
        assert Image.open(tmp_path / "out" / f"{name}_overview.png").width > 200
        assert f"{name}: {shape[1]}×{shape[0]}, std " in said
    summary = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert summary["num_images"] == 3 and summary["settings"]["level"] == 0.5
    with open(tmp_path / "out" / "predict.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b", "below/c"]
    assert float(rows[0]["mean_std"]) == pytest.approx(_arrays(tmp_path, "a")["std"].mean())


def test_input_is_the_low_res_image_itself(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    """Its pixels are the block means of a consistent mean: nothing was shrunk or cut."""
    done("sr_predict", _argv(subpixel_nets, tmp_path, photos / "a.png"))
    mean = _arrays(tmp_path, "a")["mean"].astype(np.float64)
    blocks = mean.reshape(13, FACTOR, 9, FACTOR, 3).mean(axis=(1, 3))
    truth = np.asarray(Image.open(photos / "a.png"))
    np.testing.assert_allclose(blocks, truth, rtol=0, atol=1e-3)


def test_numbers_of_the_line_are_those_of_the_arrays(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos / "below" / "c.png", std_threshold=100)
    said = done("sr_predict", argv).out
    per_pixel = _arrays(tmp_path, "c")["std"].mean(axis=2)
    share = 100 * (per_pixel > 100).mean()
    assert f"std {per_pixel.mean():.2f} grey levels on average" in said
    assert (
        f"above 100 in {share:.1f} % of the pixels" in said and "unlike training: nothing" in said
    )


def test_finished_images_are_not_computed_again(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos)
    done("sr_predict", argv)
    before = tree(tmp_path / "out")
    said = done("sr_predict", argv).out
    assert tree(tmp_path / "out") == before and "std" not in said
    (tmp_path / "out" / "a_std.npy").unlink()
    Image.fromarray(photo(9, (8, 8))).save(photos / "b.png")  # another image of the name
    said = done("sr_predict", argv).out
    assert "a: 36×52" in said and "b: 32×32" in said and "below/c" not in said
    after = tree(tmp_path / "out")
    assert after["a_std.npy"] == before["a_std.npy"] and after["b_mean.npy"] != before["b_mean.npy"]


@pytest.mark.parametrize("changes", [{"level": 0.8}, {"tile": 4}, {"apply_orientation": False}])
def test_results_of_other_settings_are_refused(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, changes: dict[str, Any]
) -> None:
    done("sr_predict", _argv(subpixel_nets, tmp_path, photos / "a.png"))
    before = tree(tmp_path / "out")
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path, photos, **changes))
    assert outcome.code == EXIT_DATA and f"--{next(iter(changes))}" in outcome.err
    assert "--output_dir" in outcome.err and tree(tmp_path / "out") == before


def test_a_signal_stops_between_rows_and_the_next_run_goes_on(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos)
    whole = _argv(subpixel_nets, tmp_path / "whole", photos)
    done("sr_predict", whole)

    def stopped(flags: Any, *args: Any) -> Any:
        found = real(flags, *args)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    real = predict_run.PredictRun._judge
    monkeypatch.setattr(predict_run.PredictRun, "_judge", stopped)
    outcome = run("sr_predict", argv)
    assert outcome.code == EXIT_STOPPED and "--output_dir" in outcome.out
    assert (tmp_path / "out" / "a_result.json").exists()
    assert not (tmp_path / "out" / "b_mean.npy").exists()
    monkeypatch.setattr(predict_run.PredictRun, "_judge", real)
    said = done("sr_predict", argv).out
    assert "b: 32×32" in said and "a: " not in said
    arrays = [path for path in tree(tmp_path / "out") if path.endswith(".npy")]
    ours, theirs = tree(tmp_path / "out"), tree(tmp_path / "whole" / "out")
    assert len(arrays) == 12 and all(ours[path] == theirs[path] for path in arrays)


def test_an_image_that_another_process_has_is_left_to_it(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos)
    done("sr_predict", argv)
    claims = sorted((tmp_path / "out" / ".claims").iterdir())
    assert len(claims) == 3
    shutil.rmtree(tmp_path / "out")
    locks = [try_lock(str(claim)) for claim in claims]
    said = done("sr_predict", argv).out
    assert "0 images in" in said and not list((tmp_path / "out").glob("*.npy"))
    assert all(lock is not None and lock.close() is None for lock in locks)
    assert "3 images in" in done("sr_predict", argv).out


def test_truth_adds_errors_and_metrics_without_predicting_again(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    done("sr_predict", _argv(subpixel_nets, tmp_path, photos))
    before = tree(tmp_path / "out")
    high = tmp_path / "high"
    argv = _argv(subpixel_nets, tmp_path, photos, truth=high)
    said = done("sr_predict", argv).out
    after = tree(tmp_path / "out")
    assert after["a_mean.npy"] == before["a_mean.npy"] and "a_error.png" in after
    arrays, y = _arrays(tmp_path, "a"), np.asarray(Image.open(high / "a.png")).astype(np.float64)
    record = json.loads(after["a_result.json"])["truth"]
    mse = ((arrays["mean"] - y) ** 2).mean()
    assert record["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-4)
    inside = (arrays["lower"] <= y) & (y <= arrays["upper"])
    assert record["coverage"] == pytest.approx(inside.mean())
    z2 = (arrays["mean"] - y) ** 2 / np.maximum(arrays["std"].astype(np.float64) ** 2, 1 / 12)
    assert record["z2"] == pytest.approx(z2.mean(), rel=1e-4)
    assert record["low_res_rms"] < 0.5  # rounding of the low-res image
    low = Image.open(photos / "a.png")
    bilinear = low.resize((36, 52), Image.Resampling.BILINEAR)
    mse = ((np.asarray(bilinear) - y) ** 2).mean()
    assert record["psnr_bilinear"] == pytest.approx(10 * np.log10(255**2 / mse), abs=0.1)
    assert f"PSNR {record['psnr']:.2f} dB" in said and "warning" not in said


def test_arrays_may_be_left_out(tmp_path: Path, photos: Path, subpixel_nets: Nets) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos / "a.png", save_arrays=False)
    done("sr_predict", argv)
    names = {path.name for path in (tmp_path / "out").glob("a_*")}
    assert names == {"a_mean.png", "a_std.png", "a_overview.png", "a_result.json"}
    before = tree(tmp_path / "out")
    done("sr_predict", argv)
    assert tree(tmp_path / "out") == before
    truth = {"truth": tmp_path / "high" / "a.png"}
    said = done("sr_predict", argv + words(truth)).out  # what it is compared with is made again
    assert "PSNR" in said and not list((tmp_path / "out").glob("*.npy"))
    assert "a: 36×52" in done("sr_predict", argv + words(truth, save_arrays=True)).out
    assert len(list((tmp_path / "out").glob("*.npy"))) == 4


def test_truth_of_another_image_is_told(tmp_path: Path, photos: Path, subpixel_nets: Nets) -> None:
    Image.fromarray(255 - np.asarray(Image.open(tmp_path / "high" / "a.png"))).save(
        tmp_path / "other.png"
    )
    argv = _argv(subpixel_nets, tmp_path, photos / "a.png", truth=tmp_path / "other.png")
    assert "block means of the truth differ" in done("sr_predict", argv).out
    Image.fromarray(photo(1, (52, 40))).save(tmp_path / "larger.png")
    argv = _argv(subpixel_nets, tmp_path, photos / "a.png", truth=tmp_path / "larger.png")
    outcome = run("sr_predict", argv)
    assert outcome.code == EXIT_DATA and "40×52" in outcome.err and "36×52" in outcome.err


def test_dry_run_writes_nothing(tmp_path: Path, photos: Path, subpixel_nets: Nets) -> None:
    said = done("sr_predict", _argv(subpixel_nets, tmp_path, photos, dry_run=True)).out
    assert "parameters" in said and "36×52" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "log").exists()


def test_exif_orientation_is_respected_unless_asked(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(4, (8, 12))).save(tmp_path / "turned.jpg", exif=exif)
    done("sr_predict", _argv(subpixel_nets, tmp_path, tmp_path / "turned.jpg"))
    assert _arrays(tmp_path, "turned")["mean"].shape == (48, 32, 3)


def test_grey_and_alpha_are_told(tmp_path: Path, subpixel_nets: Nets) -> None:
    Image.fromarray(photo(4, (8, 12))[..., 0]).save(tmp_path / "grey.png")
    rgba = np.dstack([photo(4, (8, 12)), np.full((8, 12), 99, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    said = done("sr_predict", _argv(subpixel_nets, tmp_path, tmp_path / "grey.png")).out
    assert "notice" in said and "it is grey" in said
    said = done("sr_predict", _argv(subpixel_nets, tmp_path, tmp_path / "alpha.png")).out
    assert "alpha" in said and "it is grey" not in said


def test_images_that_differ_in_their_endings_alone_keep_them(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    Image.fromarray(photo(4, (8, 12))).save(photos / "a.jpg")
    done("sr_predict", _argv(subpixel_nets, tmp_path, photos))
    names = {path.name for path in (tmp_path / "out").glob("*_mean.npy")}
    assert names == {"a.jpg_mean.npy", "a.png_mean.npy", "b_mean.npy"}


def test_a_unet_tells_of_sizes_unlike_its_training(
    tmp_path: Path, photos: Path, unet_nets: Nets
) -> None:
    said = done("sr_predict", _argv(unet_nets, tmp_path, photos, tile=12)).out
    assert "notice" in said and "trained on 8" in said and "unlike training: size 9×12" in said


def _bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.png"
    if kind == "truncated":
        path.write_bytes((folder / "a.png").read_bytes()[:-40])
    elif kind == "bomb":
        Image.new("1", (10_000, 10_000)).save(path)
    elif kind == "words":
        path.write_text("no image")
    elif kind == "folder":
        path.mkdir()
        return path
    return path


@pytest.mark.parametrize("kind", ["truncated", "bomb", "words", "missing"])
def test_bad_image_is_one_line_and_leaves_nothing(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, kind: str
) -> None:
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path, _bad(photos, kind)))
    assert outcome.code == EXIT_DATA and "bad.png" in outcome.err
    assert outcome.err.count("error:") == 1 and "Traceback" not in outcome.err
    assert not [path for path in tree(tmp_path / "out") if path.startswith("bad")]


def test_bad_image_of_a_folder_is_left_out_where_asked(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    _bad(photos, "truncated")
    argv = _argv(subpixel_nets, tmp_path, photos, on_bad_image="skip")
    said = done("sr_predict", argv).out
    assert "warning: left out" in said and "3 images in" in said
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path, photos))
    assert outcome.code == EXIT_DATA and "bad.png" in outcome.err
    assert "--on_bad_image skip leaves it out" in outcome.err


@pytest.mark.parametrize(
    ("changes", "code", "part"),
    [
        ({"input": ""}, EXIT_USAGE, "--input"),
        ({"level": 1}, EXIT_USAGE, "--level"),
        ({"tile": 0}, EXIT_USAGE, "--tile"),
        ({"std_threshold": "nan"}, EXIT_USAGE, "--std_threshold"),
        ({"mean_model_path": ""}, EXIT_CHECKPOINT, "--mean_model_path"),
        ({"mean_model_path": "{fold}/model000001.pt"}, EXIT_CHECKPOINT, "of all images"),
        ({"var_model_path": "nowhere/model000001.pt"}, EXIT_CHECKPOINT, "nowhere"),
    ],
)
def test_flags_of_no_use_are_refused(
    tmp_path: Path,
    photos: Path,
    subpixel_nets: Nets,
    changes: dict[str, Any],
    code: int,
    part: str,
) -> None:
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path, photos, **changes))
    assert outcome.code == code and part in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_among_the_inputs_is_refused(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    argv = _argv(subpixel_nets, tmp_path, photos, output_dir=photos / "out")
    outcome = run("sr_predict", argv)
    assert outcome.code == EXIT_DATA and "--output_dir" in outcome.err
    assert not (photos / "out").exists()


def test_networks_that_do_not_belong_together_are_refused(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, unet_nets: Nets
) -> None:
    for mean, var, part in (
        (unet_nets.mean, subpixel_nets.var, "another mean net"),
        (subpixel_nets.var, subpixel_nets.mean, "exchanged"),
    ):
        argv = _argv(Nets(mean, var), tmp_path, photos)
        outcome = run("sr_predict", argv)
        assert outcome.code == EXIT_CHECKPOINT and part in outcome.err


def test_bare_weights_need_the_flags_of_their_training(
    tmp_path: Path, photos: Path, subpixel_nets: Nets
) -> None:
    mean, var = tmp_path / "mean" / "model000002.pt", tmp_path / "var" / "model000002.pt"
    for bare, path in ((mean, subpixel_nets.mean), (var, subpixel_nets.var)):
        bare.parent.mkdir()
        shutil.copy(path, bare)
    outcome = run("sr_predict", _argv(Nets(mean, var), tmp_path, photos))
    assert outcome.code == EXIT_CHECKPOINT and "--mean_model_args_path" in outcome.err
    root = subpixel_nets.mean.parents[1]
    args = {
        "mean_model_args_path": root / "log_sr_mean" / "mean_model_args.pkl",
        "var_model_args_path": root / "log_sr_var" / "var_model_args.pkl",
    }
    done("sr_predict", _argv(Nets(mean, var), tmp_path, photos, **args))


@pytest.mark.parametrize("small_size", [4, 9])
def test_flags_that_make_no_network_are_not_said_to_be_those_of_the_prediction(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, small_size: int
) -> None:
    """Of another factor, and none at all: sr_predict.py has no flag of a size."""
    paths, args = [], {}
    for path, kind in ((subpixel_nets.mean, MeanModelFlags), (subpixel_nets.var, VarModelFlags)):
        name = "mean" if kind is MeanModelFlags else "var"
        paths.append(tmp_path / name / "model000002.pt")
        paths[-1].parent.mkdir()
        shutil.copy(path, paths[-1])
        save_model_args(str(tmp_path), kind(**{**SUBPIXEL, "small_size": small_size}))
        args[f"{name}_model_args_path"] = tmp_path / f"{name}_model_args.pkl"
    outcome = run("sr_predict", _argv(Nets(*paths), tmp_path, photos, **args))
    assert outcome.code == EXIT_CHECKPOINT and "the training of" in outcome.err
    assert "--mean_model_args_path; give that of this training" in outcome.err


def test_full_disk_leaves_no_array(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(1, 1, 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path, photos))
    assert outcome.code == EXIT_DATA and "free" in outcome.err
    assert not [path for path in tree(tmp_path / "out") if path.endswith(".npy")]
