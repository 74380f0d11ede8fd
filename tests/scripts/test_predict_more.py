"""sr_predict.py with networks that see masks, levels and images side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags
from sr_var.values import Units
from tests.pipeline import Pipeline
from tests.scripts.test_degradation_runs import SAME, SUBPIXEL, both_nets, mean_flags
from tests.tiny import LARGE, SMALL, TEST_NAMES, Outcome, done, photo, run, tree, words
from utils.flags.groups import Reading
from utils.images.pixels import bytes_to_image
from utils.process.errors import EXIT_DATA, EXIT_USAGE

# the numbers of the pictures, which noise may leave
FLOATS = {"value_range": "0,255"}


def _predict(root: Path, out: str, **changes: Any) -> list[str]:
    nets = {**mean_flags(root), "var_model_path": root / "sr_var" / "model000002.pt"}
    return words(nets, output_dir=root / out, log_dir=root / f"log_{out}", **changes)


def _require_one_line(outcome: Outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome.err
    assert all(part in outcome.err for part in parts), outcome.err
    assert outcome.err.count("error:") == 1 and "Traceback" not in outcome.err


def _in_units(image: torch.Tensor) -> NDArray[Any]:
    values: NDArray[Any] = (127.5 * (image[0] + 1)).permute(1, 2, 0).numpy()
    return values


def _x_of(pipeline: Pipeline, name: str, **net: Any) -> torch.Tensor:
    """X of a test image as both test scripts see it."""
    flags = MeanModelFlags(**net)
    recipe = Units.of(flags).recipe(str(pipeline.data.data_dir), LARGE, Reading())
    crop = torch.from_numpy(recipe.cut(name).pixels).permute(2, 0, 1)[None]
    return View.of(flags).x_of(bytes_to_image(crop), [name])


def _require_tested(root: Path, name: str, out: str, stem: str) -> None:
    """What was predicted is what the test scripts say of the image."""
    (mean,), (std,) = (root.glob(f"{out}/{stem}_{kind}.npy") for kind in ("mean", "std"))
    folder = root / "out" / name
    np.testing.assert_allclose(np.load(mean), np.load(folder / "high_res_mean_2.npy"), atol=1e-3)
    np.testing.assert_allclose(np.load(std), np.load(folder / "high_res_std_2.npy"), atol=1e-3)


def test_masks_give_what_the_test_scripts_give(pipeline: Pipeline, tmp_path: Path) -> None:
    net = {**SUBPIXEL, **SAME, "degradation": "mask:0.4"}
    both_nets(pipeline, tmp_path, **net)
    for folder in ("x", "m", "clear"):
        (tmp_path / folder).mkdir()
    stems = [name.partition(".")[0] for name in TEST_NAMES]
    for name, stem in zip(TEST_NAMES, stems, strict=True):
        x = _x_of(pipeline, name, **{k: v for k, v in net.items() if k != "network"})
        is_seen = x[0, 3].numpy() > 0
        pixels = np.rint(_in_units(x[:, :3])).astype(np.uint8)
        np.save(tmp_path / "x" / f"{stem}.npy", np.where(is_seen[..., None], pixels, 7))
        Image.fromarray((is_seen * 255).astype(np.uint8)).save(tmp_path / "m" / f"{stem}.png")
        Image.fromarray(np.dstack([pixels, is_seen * np.uint8(255)])).save(
            tmp_path / "clear" / f"{stem}.png"
        )
    done("sr_predict", _predict(tmp_path, "by_mask", input=tmp_path / "x", mask=tmp_path / "m"))
    said = done("sr_predict", _predict(tmp_path, "by_alpha", input=tmp_path / "clear")).out
    assert "of its pixels are hidden" in said and "alpha channel" not in said
    assert "unlike training: nothing" in said
    for name, stem in zip(TEST_NAMES, stems, strict=True):
        for out in ("by_mask", "by_alpha"):
            _require_tested(tmp_path, name, out, stem)
    _require_hidden_pixels_are_judged(tmp_path, stems[0])
    _require_masks_are_remembered(tmp_path, stems[0])


def _require_hidden_pixels_are_judged(root: Path, stem: str) -> None:
    truth, hidden = photo(6, (LARGE, LARGE)), np.load(root / "x" / f"{stem}.npy") == 7
    Image.fromarray(truth).save(root / "truth.png")
    given = {"input": root / "x" / f"{stem}.npy", "mask": root / "m" / f"{stem}.png"}
    said = done("sr_predict", _predict(root, "judged", **given, truth=root / "truth.png")).out
    found = json.loads((root / "judged" / f"{stem}_result.json").read_text("utf-8"))["truth"]
    mean, low, high = (
        np.load(root / "judged" / f"{stem}_{k}.npy") for k in ("mean", "lower", "upper")
    )
    is_hidden = hidden.all(axis=2)
    mse = ((mean - truth)[is_hidden] ** 2).mean()
    assert found["hidden"]["psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=0.01)
    inside = ((low <= truth) & (truth <= high))[is_hidden].mean()
    assert found["hidden"]["coverage"] == pytest.approx(inside, abs=0.01)
    assert f"of hidden pixels PSNR {found['hidden']['psnr']:.2f} dB" in said


def _require_masks_are_remembered(root: Path, stem: str) -> None:
    """An image with another mask is predicted again, and no other one."""
    argv = _predict(root, "by_mask", input=root / "x", mask=root / "m")
    before = tree(root / "by_mask")
    done("sr_predict", argv)
    assert tree(root / "by_mask") == before
    scribble = np.full((LARGE, LARGE), 255, np.uint8)
    scribble[10:20, 4:28] = 0
    Image.fromarray(scribble).save(root / "m" / f"{stem}.png")
    said = done("sr_predict", argv).out
    assert f"{stem}: 32×32" in said and said.count("32×32") == 1
    assert "23.4 % of the pixels are hidden" in said and "trained on mask:0.4" in said
    record = json.loads((root / "by_mask" / f"{stem}_result.json").read_text("utf-8"))
    assert len(record["mask_sha256"]) == 1 and "mask:0.4" in record["extrapolated"]


def test_levels_masks_and_images_side_by_side(pipeline: Pipeline, tmp_path: Path) -> None:
    told = {"degradation": "area+noise:5-50&mask:0.5", "condition_on_level": True}
    net = {**SUBPIXEL, **FLOATS, **told, "large_size": LARGE, "small_size": SMALL}
    both_nets(pipeline, tmp_path, **net)
    name, factor = TEST_NAMES[1], LARGE // SMALL
    x = _x_of(pipeline, name, **{k: v for k, v in net.items() if k != "network"})
    whole = F.pixel_shuffle(x[:, 3 : 3 + 3 * factor**2], factor)
    is_seen = F.pixel_shuffle(x[:, 3 + 3 * factor**2 : -1], factor)[0, 0].numpy() > 0
    level = 5 + 45 * (float(x[0, -1, 0, 0]) + 1) / 2
    np.save(tmp_path / "x.npy", _in_units(x[:, :3]))
    np.save(tmp_path / "z.npy", np.where(is_seen[..., None], _in_units(whole), np.nan))
    np.save(tmp_path / "m.npy", is_seen)
    given = {"input": tmp_path / "x.npy", "also": tmp_path / "z.npy", "degradation_level": level}
    for out, more in (("by_nan", {}), ("by_mask", {"mask": tmp_path / "m.npy"})):
        argv = _predict(tmp_path, out, **given, **more, truth=tmp_path / "z.npy")
        outcome = run("sr_predict", argv)
        _require_one_line(outcome, EXIT_DATA, "z.npy", "NaN")  # a truth has no hole
        done("sr_predict", _predict(tmp_path, out, **given, **more))
        _require_tested(tmp_path, name, out, "x")
        with Image.open(tmp_path / out / "x_overview.png") as overview:
            assert overview.width > 1.5 * overview.height  # five panels, both inputs among them
    again = _predict(tmp_path, "by_nan", **{**given, "degradation_level": 9})
    _require_one_line(run("sr_predict", again), EXIT_DATA, "--degradation_level")
    for changes, code, parts in (
        ({"degradation_level": ""}, EXIT_USAGE, ("--degradation_level", "noise (from 5 to 50)")),
        ({"degradation_level": "much"}, EXIT_USAGE, ("--degradation_level much", "number")),
        ({"degradation_level": 51}, EXIT_USAGE, ("51", "from 5 to 50")),
        ({"also": ""}, EXIT_USAGE, ("--also", "see 1")),
        ({"also": tmp_path / "none"}, EXIT_DATA, ("--also", "does not exist")),
        ({"also": tmp_path / "x.npy"}, EXIT_DATA, ("--also", "8×8", "32×32")),
    ):
        argv = _predict(tmp_path, "no", **{**given, **changes})
        _require_one_line(run("sr_predict", argv), code, *parts)


def test_a_mask_of_the_training_is_used_where_it_fits(pipeline: Pipeline, tmp_path: Path) -> None:
    pixels = np.full((LARGE, LARGE), 255, np.uint8)
    pixels[8:20, 8:20] = 0
    Image.fromarray(pixels).save(tmp_path / "m.png")
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation=f"mask:{tmp_path / 'm.png'}")
    shown = tmp_path / "out" / TEST_NAMES[0] / "low_res.png"
    said = done("sr_predict", _predict(tmp_path, "fits", input=shown)).out
    assert "unlike training: nothing" in said
    _require_tested(tmp_path, TEST_NAMES[0], "fits", "low_res")
    Image.fromarray(photo(1, (40, 48))).save(tmp_path / "wide.png")
    argv = _predict(tmp_path, "no", input=tmp_path / "wide.png")
    _require_one_line(run("sr_predict", argv), EXIT_DATA, "wide.png", "--mask")
    argv += words(mask=tmp_path / "m.png")
    _require_one_line(run("sr_predict", argv), EXIT_DATA, "wide.png", "32×32", "48×40")
    Image.fromarray(np.pad(pixels, ((0, 8), (0, 16)))).save(tmp_path / "wide_mask.png")
    argv = _predict(tmp_path, "wide", input=tmp_path / "wide.png", mask=tmp_path / "wide_mask.png")
    assert "by another mask" in done("sr_predict", argv).out
    (tmp_path / "m.png").unlink()
    argv = _predict(tmp_path, "gone", input=shown)
    _require_one_line(run("sr_predict", argv), EXIT_DATA, "m.png", "or give --mask")


def test_what_no_mask_is_and_whose_it_is_is_one_line(pipeline: Pipeline, tmp_path: Path) -> None:
    both_nets(pipeline, tmp_path, **SUBPIXEL, **SAME, degradation="mask:0.4")
    for folder in ("x", "m"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        Image.fromarray(photo(2, (9, 12))).save(tmp_path / "x" / f"{name}.png")
    masks = {"black": np.zeros((9, 12), np.uint8), "clear": np.zeros((9, 12, 4), np.uint8)}
    for name, mask in masks.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    (tmp_path / "words.png").write_text("no image")
    Image.fromarray(np.ones((9, 12), np.uint8)).save(tmp_path / "m" / "a.png")
    for mask, parts in (
        (None, ("a.png", "--mask")),
        ("black.png", ("a.png", "hides all")),
        ("clear.png", ("clear.png", "transparent")),
        ("words.png", ("words.png",)),
        ("m", ("--mask", "1 of 2", "(b)")),
        ("nowhere", ("--mask", "does not exist")),
    ):
        flags = {} if mask is None else {"mask": tmp_path / mask}
        argv = _predict(tmp_path, "no", input=tmp_path / "x", **flags)
        _require_one_line(run("sr_predict", argv), EXIT_DATA, *parts)
    one = _predict(tmp_path, "one", input=tmp_path / "x" / "a.png", mask=tmp_path / "m")
    assert "0 % of its pixels are hidden" in done("sr_predict", one).out
    both = _predict(tmp_path, "all", input=tmp_path / "x", mask=tmp_path / "m" / "a.png")
    assert "2 images in" in done("sr_predict", both).out  # one for all


@pytest.mark.parametrize("flag", ["mask", "also", "degradation_level"])
def test_networks_that_see_an_image_alone_refuse_more(
    pipeline: Pipeline, tmp_path: Path, flag: str
) -> None:
    Image.fromarray(photo(2, (9, 12))).save(tmp_path / "a.png")
    given = 25 if flag == "degradation_level" else tmp_path / "a.png"
    nets = {"mean_model_path": pipeline.mean_model, "var_model_path": pipeline.var_model}
    argv = words(nets, input=tmp_path / "a.png", log_dir=tmp_path, output_dir=tmp_path / "no")
    argv += words({flag: given})
    _require_one_line(run("sr_predict", argv), EXIT_USAGE, f"--{flag}", "leave it out")
    assert not (tmp_path / "no").exists()
