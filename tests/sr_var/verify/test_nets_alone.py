"""The verification without samples: the nets against the real images, and nothing of a sampler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.flags.verify import BudgetFlags
from sr_var.verify.run import verify_all
from tests.sr_var.hand_made import MEAN_STEP, VAR_STEP, Results
from tests.tiny import photo, run, tree
from utils.logger import RunLogger
from utils.metrics import psnr, ssim
from utils.untrusted.pickles import dump_pickle

SIDE, NUM_IMAGES = 16, 4
# what needs no samples, by section
VAR_KEYS = {"mean_std_net", "num_negative", "num_values"}
HIGH_RES_KEYS = {"psnr_net", "psnr_bilinear", "ssim_net", "ssim_bilinear", "mean_abs_error_net"}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Photographs and the nets' results of them; nobody has drawn a sample."""
    made, rng = Results(tmp_path), np.random.default_rng(0)
    names = [f"image{i}.png" for i in range(NUM_IMAGES)]
    (tmp_path / "images").mkdir()
    for i, name in enumerate(names):
        picture = photo(i, (SIDE, SIDE))
        Image.fromarray(picture).save(tmp_path / "images" / name)
        std = rng.uniform(2, 8, picture.shape)
        made.add_nets(name, picture + std * rng.standard_normal(picture.shape), std**2)
    dump_pickle({"all": {"y": 0, "file_names": names}}, tmp_path / "info.pkl")
    return made


def _argv(results: Results, **changes: Any) -> list[str]:
    flags = {
        "data_dir": results.root / "images",
        "data_info_dict_path": results.root / "info.pkl",
        "large_size": SIDE,
        "num_samples": 0,
        "ddpm_sr_output_dir": results.root / "no such folder",
        "sr_model_output_dir": results.root / "nets",
        "mean_model_step": MEAN_STEP,
        "var_model_step": VAR_STEP,
        "log_dir": results.root / "log",
        "num_threads": 1,
        **changes,
    }
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def _verify(results: Results, **changes: Any) -> tuple[dict[str, Any], str]:
    said = run("sr_var_verification", _argv(results, **changes))
    assert said.code == 0, said.err
    found = json.loads((results.root / "log" / "results.json").read_text(encoding="utf-8"))
    return found, said.out + said.err


def test_all_that_needs_no_samples_is_there_and_the_rest_has_no_name(results: Results) -> None:
    found, _ = _verify(results)
    assert found["num_images"] == NUM_IMAGES and found["num_samples"] == 0
    for section in ("mean", "ceiling", "verdict", "scatter", "truth"):
        assert section not in found
    assert set(found["var"]) == VAR_KEYS and set(found["high_res"]) == HIGH_RES_KEYS
    for section in ("calibration", "consistency", "cost", "curves"):
        assert set(found[section]) == {"nets"}
    kinds = {"reliability", "coverage", "sparsification"}
    assert set(found["curves"]["nets"]) == kinds
    assert {"z2", "nll", "crps", "ence", "ause", "coverage_90"} <= set(found["calibration"]["nets"])
    assert found["intervals"] == {} and found["clusters"]["count"] == 4
    header = (results.root / "log" / "results.csv").read_text("utf-8").splitlines()[0]
    assert "high_res.ssim_net" in header and "samples" not in header and "mean.mse" not in header


def test_metrics_are_those_of_the_nets_against_the_real_images(results: Results) -> None:
    """The nets' law is the right one by construction, so its calibration is known."""
    found, _ = _verify(results)
    pairs = []
    for i in range(NUM_IMAGES):
        real = np.asarray(Image.open(results.root / "images" / f"image{i}.png"), np.float64)
        mean = np.load(results.root / "nets" / f"image{i}.png" / f"high_res_mean_{MEAN_STEP}.npy")
        pairs.append((real, mean.astype(np.float64)))
    for name, metric in (("psnr_net", psnr), ("ssim_net", ssim)):
        expected = np.mean([metric(real, mean) for real, mean in pairs])
        assert found["high_res"][name] == pytest.approx(expected, rel=1e-9)
    nets = found["calibration"]["nets"]
    assert nets["z2"] == pytest.approx(1.0, abs=0.15)
    assert nets["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_metrics_do_not_depend_on_whether_there_are_samples(results: Results) -> None:
    alone, _ = _verify(results)
    rng = np.random.default_rng(1)
    for i in range(NUM_IMAGES):
        samples = rng.uniform(0, 255, (4, SIDE, SIDE, 3))
        results.add_samples(f"image{i}.png", samples, has_moments=False)
        low_res = results.root / "samples" / f"image{i}.png" / "low_res.png"
        Image.fromarray(np.zeros((SIDE // 4, SIDE // 4, 3), np.uint8)).save(low_res)
    both, _ = _verify(results, num_samples=4, ddpm_sr_output_dir=results.root / "samples")
    assert {"mean", "ceiling", "verdict", "scatter"} < set(both)
    assert both["calibration"]["nets"] == alone["calibration"]["nets"]
    for section, keys in (("var", VAR_KEYS), ("high_res", HIGH_RES_KEYS)):
        assert {key: both[section][key] for key in keys} == alone[section]


def test_page_pictures_and_table_speak_of_the_nets_only(results: Results) -> None:
    _, said = _verify(results)
    assert "4 images, no samples" in said and "of the real pixels lie in the 95 %" in said
    assert "95 % intervals take 100 images; here are 4." in said
    assert "floor" not in said and "Nets and samples" not in said and "CRPS" in said
    page = (results.root / "log" / "report.html").read_text("utf-8")
    assert "nets against the real images" in page and "4 images, no samples" in page
    assert "Sparsification" in page and '"num_samples":0' in page
    visible = page.split('id="gallery-data"')[0]
    assert "samples each" not in visible and "noise floor" not in visible
    log = results.root / "log"
    # one row: high-res, low-res, mean, |error|, std
    width, height = Image.open(log / "panels" / "image0.png.png").size
    assert width > 5 * 144 and height == 144 + 28
    assert (log / "overview.png").is_file()


def test_folder_of_samples_is_neither_read_nor_written(results: Results) -> None:
    folder = results.root / "samples" / "image0.png"
    folder.mkdir(parents=True)
    for name in ("moments.npz", "exact_moments.npz", "low_res.png"):
        (folder / name).write_bytes(b"damaged")
    before = tree(results.root / "samples")
    _verify(results, ddpm_sr_output_dir=results.root / "samples")
    assert tree(results.root / "samples") == before


def test_mistyped_folder_of_samples_stays_an_error_that_names_the_way_out(results: Results) -> None:
    said = run("sr_var_verification", _argv(results, num_samples=4))
    assert said.code == 3
    assert "no such folder" in said.err and "--num_samples (0:" in said.err
    assert not (results.root / "log" / "results.json").exists()


@pytest.mark.parametrize("num_samples", [1, -1])
def test_one_sample_is_refused(results: Results, num_samples: int) -> None:
    said = run("sr_var_verification", _argv(results, num_samples=num_samples))
    assert said.code == 2 and f"--num_samples {num_samples} must be 0 or at least 2" in said.err


def test_small_size_makes_the_baseline_and_must_divide_the_large_one(results: Results) -> None:
    quarter, half = (_verify(results, small_size=size)[0] for size in (4, 8))
    assert half["high_res"]["psnr_bilinear"] > quarter["high_res"]["psnr_bilinear"]
    assert _verify(results)[0]["high_res"] == quarter["high_res"]
    said = run("sr_var_verification", _argv(results, small_size=5))
    assert said.code == 2 and "--small_size 5 must divide --large_size 16" in said.err


def test_a_side_that_four_does_not_divide_asks_for_the_small_size(tmp_path: Path) -> None:
    side, made = 18, Results(tmp_path)
    made.add_image("a.png")
    Image.fromarray(np.full((side, side, 3), 9, np.uint8)).save(tmp_path / "images" / "a.png")
    made.add_nets("a.png", np.full((side, side, 3), 9.0), np.ones((side, side, 3)))
    argv = _argv(made, large_size=side)
    said = run("sr_var_verification", argv)
    assert said.code == 3 and "does not divide --large_size 18; give the --small_size" in said.err
    assert run("sr_var_verification", [*argv, "--small_size", "6"]).code == 0


def test_error_budget_needs_samples() -> None:
    with pytest.raises(ValueError, match="num_samples 0 must be at least 4"):
        BudgetFlags(num_samples=0)


def test_single_image_and_dry_run_work_without_samples(results: Results) -> None:
    dump_pickle({"all": {"y": 0, "file_names": ["image0.png"]}}, results.root / "info.pkl")
    assert _verify(results)[0]["intervals"] == {}
    before = tree(results.root)
    flags = results.flags(num_samples=0, large_size=SIDE, dry_run=True)
    verify_all(flags, RunLogger(None, is_quiet=True))
    assert tree(results.root) == before
