"""Prediction in the images' own numbers: every format, units, GeoTIFF, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_var import Predictor
from sr_var.flags.predict import PredictFlags
from sr_var.predict import pictures
from sr_var.predict.predictor import Prediction
from sr_var.predict.run import PredictRun
from sr_var.values import GREY_LEVELS, Units
from tests.native_files import geo_keys, geo_tiff, png16_of, tiff_of
from tests.sr_var.predict.pairs import FACTOR, subpixel_pair
from tests.tiny import photo, tree
from utils.images.files import BadImageError
from utils.images.native import read_native
from utils.process.errors import DataError

tifffile = pytest.importorskip("tifffile")
ARRAYS = ("mean", "std", "lower", "upper")
H, W = 11, 14
RGB = photo(5, (H, W))
DEEP = RGB.astype(np.uint16) * 257 - RGB // 3
FLOATS = (RGB / 100 - 1).astype(np.float32)
GREY_8 = Units(num_channels=1)
DEEP_1, DEEP_3 = (Units(0.0, 65535.0, channels, is_8_bit=False) for channels in (1, 3))
FLOAT_2 = Units(-1.0, 2.0, 2, is_8_bit=False)
TWELVE_BITS = Units(0.0, 4095.0, 1, is_8_bit=False)
PREDICTORS = {
    units: Predictor(subpixel_pair(units), tile=6)
    for units in (GREY_LEVELS, GREY_8, DEEP_1, DEEP_3, FLOAT_2, TWELVE_BITS)
}


def predict(units: Units, place: Path, **flags: Any) -> list[str]:
    """What a run of sr_predict.py says; its results are in `out`."""
    said: list[str] = []
    root = place.parent
    more = PredictFlags(input=str(place), output_dir=str(root / "out"), **flags)
    PredictRun(PREDICTORS[units], more, said.append).run()
    return said


def results(folder: Path, name: str) -> dict[str, Any]:
    """The arrays of an image, of either format, (H, W, C)."""
    found = {}
    for kind in ARRAYS:
        path = folder / "out" / f"{name}_{kind}.npy"
        if path.exists():
            found[kind] = np.load(path)
        else:
            found[kind] = read_native(path.with_suffix(".tif")).pixels
    return found


def require_equal(found: Mapping[str, Any], wanted: Prediction[Any], near: float = 0) -> None:
    """Arrays are those of a prediction."""
    for kind in ARRAYS:
        np.testing.assert_allclose(found[kind], getattr(wanted, kind), rtol=0, atol=near)


def planes(array: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))


GREY = {"photometric": "minisblack"}
ALPHA = np.full((H, W, 1), 9000, np.uint16)
CONTENTS = {
    "png": (DEEP_3, png16_of(DEEP, (0,)), DEEP),
    "png with alpha": (DEEP_3, png16_of(np.dstack([DEEP, ALPHA]), (0,)), DEEP),
    "tiff": (DEEP_3, tiff_of(DEEP, photometric="rgb"), DEEP),
    "tiff with alpha": (
        DEEP_3,
        tiff_of(np.dstack([DEEP, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]),
        DEEP,
    ),
    "packed planes": (
        DEEP_3,
        tiff_of(planes(DEEP), photometric="rgb", planarconfig="separate", compression="zlib"),
        DEEP,
    ),
    "pages as channels": (DEEP_3, tiff_of(planes(DEEP), **GREY), DEEP),
    "grey": (DEEP_1, tiff_of(DEEP[..., 0]), DEEP[..., :1]),
    "grey for three channels": (DEEP_3, tiff_of(DEEP[..., 0]), DEEP[..., [0, 0, 0]]),
    "floats": (FLOAT_2, tiff_of(FLOATS[..., :2], planarconfig="contig", **GREY), FLOATS[..., :2]),
    "8-bit tiff": (GREY_LEVELS, tiff_of(RGB, photometric="rgb"), RGB),
    "8-bit grey tiff": (GREY_8, tiff_of(RGB[..., 0]), RGB[..., :1]),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("form", ["npy", "tiff"])
def test_files_are_predicted_in_their_unit(tmp_path: Path, kind: str, form: str) -> None:
    units, content, pixels = CONTENTS[kind]
    (tmp_path / "a.tif").write_bytes(content)
    said = predict(units, tmp_path / "a.tif", format=form)
    wanted = PREDICTORS[units](pixels)
    require_equal(results(tmp_path, "a"), wanted)
    ending = {"npy": ".npy", "tiff": ".tif"}[form]
    assert len(list((tmp_path / "out").glob(f"a_*{ending}"))) == 4
    assert len(list((tmp_path / "out").glob("a_*"))) == 8  # and pictures, and the record
    assert units.name in said[-2] and "unlike training: nothing" in said[-2]
    assert any("alpha" in line for line in said) == ("alpha" in kind)
    assert any("it is grey" in line for line in said) == ("for three" in kind)
    shown = np.asarray(Image.open(tmp_path / "out" / "a_mean.png"))
    values = units.to_255(wanted.mean)
    if values.shape[2] != 2:
        np.testing.assert_array_equal(
            shown, np.broadcast_to(np.clip(np.rint(values), 0, 255), shown.shape)
        )


@pytest.mark.parametrize(
    ("units", "array"),
    [
        (GREY_LEVELS, RGB),
        (GREY_LEVELS, planes(RGB)),
        (DEEP_3, DEEP),
        (DEEP_1, DEEP[..., 0]),
        (FLOAT_2, FLOATS[..., :2].astype(np.float64)),
    ],
)
def test_arrays_in_files_are_predicted(tmp_path: Path, units: Units, array: Any) -> None:
    np.save(tmp_path / "a.npy", array)
    predict(units, tmp_path / "a.npy")
    first = array.shape[0] == 3
    wanted = PREDICTORS[units](np.moveaxis(array, 0, 2) if first else array)
    require_equal(results(tmp_path, "a"), wanted, 1e-6)


def test_all_kinds_in_a_folder_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "low"
    folder.mkdir()
    (folder / "a.TIF").write_bytes(tiff_of(RGB, photometric="rgb"))
    np.save(folder / "b.npy", RGB)
    Image.fromarray(RGB).save(folder / "c.png")
    predict(GREY_LEVELS, folder, truth="")
    for name in "bc":
        require_equal(results(tmp_path, name), PREDICTORS[GREY_LEVELS](RGB))
    summary = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert set(summary["images"]) == {"a", "b", "c"} and "values" not in summary


def test_16_bits_are_not_squeezed(tmp_path: Path) -> None:
    """Values that differ in their low bytes alone reach the networks."""
    deep = (30_000 + np.arange(H * W).reshape(H, W)).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff_of(deep))
    predict(DEEP_1, tmp_path / "a.tif")
    flat = PREDICTORS[DEEP_1](np.full_like(deep, 30_077)).mean
    assert np.abs(results(tmp_path, "a")["mean"] - flat).max() > 20


def test_results_are_in_the_unit_of_the_data(tmp_path: Path) -> None:
    """An 8-bit image and the same in a range of another size and place: one result, rescaled."""
    scaled = Units(-3.0, 5.0, 3, is_8_bit=False)
    pair = subpixel_pair(scaled)
    floats = (RGB * np.float32(scaled.scale) - 3).astype(np.float32)
    grey, found = PREDICTORS[GREY_LEVELS](RGB), Predictor(pair, tile=6)(floats)
    np.testing.assert_allclose(found.mean, grey.mean * scaled.scale - 3, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.std, grey.std * scaled.scale, rtol=1e-3, atol=1e-5)


def test_line_table_and_threshold_are_in_the_unit_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0]))
    said = predict(DEEP_1, tmp_path / "a.tif")
    std = results(tmp_path, "a")["std"][..., 0]
    share = 100 * (std > 20 * 257).mean()
    assert (
        f"std {std.mean():.4g} units of the images (0 to 65535) on average, above 5140 in "
        f"{share:.1f} %" in said[-2]
    )
    summary = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert summary["values"] == {"in_channels": 1, "value_range": "0.0,65535.0"}
    assert summary["settings"]["std_threshold"] == 5140
    assert summary["images"]["a"]["mean_std"] == pytest.approx(std.mean())
    with pytest.raises(DataError, match="std_threshold"):
        predict(DEEP_1, tmp_path / "a.tif", std_threshold=100.0)


@pytest.mark.parametrize("top", [1e-5, 0.25, 60.0, 29000.0, 3e9])
@pytest.mark.parametrize("unit", ["grey levels", DEEP_1.name])
def test_words_of_the_scale_are_whole(top: float, unit: str) -> None:
    drawn = pictures._scale(top, 400, unit)
    assert (drawn[:, -1] == 255).all() and (drawn[[0, -1]] == 255).all()


def test_metrics_are_those_of_the_range(tmp_path: Path) -> None:
    high = (photo(3, (FACTOR * H, FACTOR * W))[..., :1].astype(np.float64) * 250).astype(np.uint16)
    low = high.reshape(H, FACTOR, W, FACTOR, 1).mean(axis=(1, 3)).astype(np.uint16)
    for name, pixels in (("low", low), ("high", high), ("other", 65535 - high)):
        (tmp_path / f"{name}.tif").write_bytes(tiff_of(pixels[..., 0]))
    said = predict(DEEP_1, tmp_path / "low.tif", truth=str(tmp_path / "high.tif"), format="tiff")
    found = results(tmp_path, "low")
    record = json.loads((tmp_path / "out" / "low_result.json").read_text())["truth"]
    y = high.astype(np.float64)
    square = (found["mean"] - y) ** 2
    assert record["psnr"] == pytest.approx(10 * np.log10(65535**2 / square.mean()), abs=1e-4)
    floored = np.maximum(found["std"].astype(np.float64) ** 2, 257**2 / 12)
    assert record["z2"] == pytest.approx((square / floored).mean(), rel=1e-4)
    inside = (found["lower"] <= y) & (y <= found["upper"])
    assert record["coverage"] == pytest.approx(inside.mean())
    assert record["low_res_rms"] < 1 and not any("warning" in line for line in said)
    said = predict(DEEP_1, tmp_path / "low.tif", truth=str(tmp_path / "other.tif"), format="tiff")
    assert "units of the images (0 to 65535) (root mean square)" in said[-2]
    assert (tmp_path / "out" / "low_error.png").exists()


def test_values_outside_of_the_training_are_told(tmp_path: Path) -> None:
    pixels = np.full((10, 10), 4000, np.uint16)
    pixels[:3] = 5000
    (tmp_path / "a.tif").write_bytes(tiff_of(pixels))
    said = predict(TWELVE_BITS, tmp_path / "a.tif")
    words = "30 % of the values, outside of 0 to 4095"
    assert f"unlike training: {words};" in said[-2]
    record = json.loads((tmp_path / "out" / "a_result.json").read_text())
    assert record["extrapolated"] == words


def test_pages_are_images_of_their_own(tmp_path: Path) -> None:
    stack = np.stack([DEEP[..., 0], DEEP[..., 1] // 2])
    (tmp_path / "a.tif").write_bytes(tiff_of(stack, **GREY))
    assert any("2 pages, of which page 0" in line for line in predict(DEEP_1, tmp_path / "a.tif"))
    require_equal(results(tmp_path, "a"), PREDICTORS[DEEP_1](stack[0]))
    with pytest.raises(DataError, match=r"--page 1 \(there: 0\)"):
        predict(DEEP_1, tmp_path / "a.tif", page=1)
    (tmp_path / "x").mkdir()
    (tmp_path / "a.tif").rename(tmp_path / "x" / "a.tif")
    predict(DEEP_1, tmp_path / "x" / "a.tif", page=1)
    require_equal(results(tmp_path / "x", "a"), PREDICTORS[DEEP_1](stack[1]))


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0]))
    predict(DEEP_1, tmp_path / "a.tif")
    before = tree(tmp_path / "out")
    with pytest.raises(DataError, match="--format"):
        predict(DEEP_1, tmp_path / "a.tif", format="tiff")
    assert tree(tmp_path / "out") == before


def test_finished_tiff_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0]))
    predict(DEEP_1, tmp_path / "a.tif", format="tiff")
    before = tree(tmp_path / "out")
    assert len(predict(DEEP_1, tmp_path / "a.tif", format="tiff")) == 1
    assert tree(tmp_path / "out") == before
    (tmp_path / "out" / "a_std.tif").unlink()
    assert len(predict(DEEP_1, tmp_path / "a.tif", format="tiff")) == 2
    assert tree(tmp_path / "out")["a_std.tif"] == before["a_std.tif"]


def test_tiff_arrays_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0]))
    predict(DEEP_1, tmp_path / "a.tif", format="tiff", save_arrays=False)
    assert not list((tmp_path / "out").glob("*.tif"))


@pytest.mark.parametrize("raster_type", [1, 2])
def test_result_lies_where_the_input_lay(tmp_path: Path, raster_type: int) -> None:
    """Tags as other programs see them: a pixel of 10 × 20 m becomes 16 of 2.5 × 5 m."""
    content = geo_tiff(DEEP[..., 0], raster_type, resolution=(30, 60), resolutionunit=3)
    (tmp_path / "a.tif").write_bytes(content)
    predict(DEEP_1, tmp_path / "a.tif", format="tiff")
    for kind in ARRAYS:
        with tifffile.TiffFile(tmp_path / "out" / f"a_{kind}.tif") as file:
            (page,) = file.pages
            assert page.dtype == np.float32 and page.shape == (FACTOR * H, FACTOR * W)
            assert page.tags[33550].value == (2.5, 5.0, 0.0)
            place = {1: 0.0, 2: 1.5}[raster_type]  # (0 + ½) · 4 − ½ between the inner pixels
            assert page.tags[33922].value == (place, place, 0, 500.0, 900.0, 0)
            assert page.tags[34735].value == geo_keys(raster_type)
            assert page.tags[34736].value in (6378137.0, (6378137.0,))
            assert page.tags[34737].value == "somewhere|"
            assert page.tags[282].value == (120, 1) and page.tags[283].value == (240, 1)
            assert page.tags[296].value == 3
            assert kind in page.description and "0 to 65535" in page.description


def test_what_geo_tags_lose_is_told_where_it_matters(tmp_path: Path) -> None:
    tag = (50844, "d", 92, (1.0,) * 92, True)
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0], extratags=[tag]))
    words = "rational polynomials"
    assert not any(words in line for line in predict(DEEP_1, tmp_path / "a.tif"))
    other = tmp_path / "b"
    other.mkdir()
    (tmp_path / "a.tif").rename(other / "a.tif")
    assert any(words in line for line in predict(DEEP_1, other / "a.tif", format="tiff"))


NAN = DEEP[..., 0].astype(np.float32)
NAN = np.where(np.arange(W) == 3, np.nan, NAN)


@pytest.mark.parametrize(
    ("units", "content", "part"),
    [
        (DEEP_1, tiff_of(NAN), "NaN"),
        (DEEP_1, tiff_of(DEEP[..., 0])[:-60], "cut off"),
        (DEEP_1, tiff_of(RGB[..., 0]), "--value_range is 0,65535"),
        (DEEP_1, tiff_of(DEEP[..., 0].astype(np.float32) + 2e5), "--value_range is 0,65535"),
        (DEEP_1, tiff_of(DEEP[..., 0].astype(np.int16)), "unsigned"),
        (DEEP_1, tiff_of(DEEP[..., :2], planarconfig="contig", **GREY), "has 2 channels"),
        (FLOAT_2, tiff_of(FLOATS, photometric="rgb"), "has 3 channels"),
        (GREY_LEVELS, tiff_of(DEEP, photometric="rgb"), "uint16"),
        (GREY_LEVELS, tiff_of(FLOATS, photometric="rgb"), "float32"),
        (
            GREY_LEVELS,
            tiff_of(planes(RGB[..., [0, 1, 2, 0]]), planarconfig="separate", **GREY),
            "4",
        ),
        (GREY_LEVELS, b"II*\0 and nothing", "a.tif"),
    ],
)
def test_files_that_do_not_fit_are_one_line(
    tmp_path: Path, units: Units, content: bytes, part: str
) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError) as told:
            predict(units, tmp_path / "a.tif", format="tiff")
    said = str(told.value)
    assert said.startswith(str(tmp_path / "a.tif")) and part in said and "\n" not in said
    assert not list((tmp_path / "out").glob("a_*"))


def test_a_page_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(DEEP[..., 0]))
    (tmp_path / "b.png").write_bytes(png16_of(DEEP[..., :1], (0,)))
    for name in ("a.tif", "b.png"):
        with pytest.raises(BadImageError, match=rf"{name}.*page 3"):
            predict(DEEP_1, tmp_path / name, page=3)


def test_colours_become_grey_levels_for_networks_of_one_channel(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(tiff_of(DEEP, photometric="rgb"))
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    assert any("luma" in line for line in predict(GREY_8, tmp_path / "a.png"))
    require_equal(results(tmp_path, "a"), PREDICTORS[GREY_8](luma))
    (tmp_path / "x").mkdir()
    (tmp_path / "b.tif").rename(tmp_path / "x" / "b.tif")
    assert any("luma" in line for line in predict(DEEP_1, tmp_path / "x" / "b.tif"))
    exact = DEEP @ np.array([0.299, 0.587, 0.114])
    found, wanted = results(tmp_path / "x", "b"), PREDICTORS[DEEP_1](exact)
    require_equal(found, wanted, 0.1)
    Image.fromarray(luma).save(tmp_path / "c.png")
    assert not any("luma" in line for line in predict(GREY_8, tmp_path / "c.png"))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_predictor_takes_arrays_in_the_unit_of_the_training(dtype: Any) -> None:
    predictor = PREDICTORS[DEEP_3]
    x = torch.from_numpy(DEEP.astype(np.float32)).permute(2, 0, 1)[None] / 32767.5 - 1
    mean, variance = (part[0].permute(1, 2, 0).numpy() for part in predictor.pair(x))
    found = predictor(DEEP.astype(dtype))
    np.testing.assert_allclose(found.mean, (mean + 1) * 32767.5, rtol=0, atol=0.5)
    np.testing.assert_allclose(found.std, np.sqrt(variance) * 32767.5, rtol=1e-3)
    grey = predictor(DEEP[..., 0].astype(dtype))
    np.testing.assert_array_equal(grey.mean, predictor(DEEP[..., [0, 0, 0]]).mean)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32, torch.float64, torch.bfloat16])
def test_predictor_takes_tensors_in_the_unit_of_the_training(dtype: Any) -> None:
    tensor = torch.from_numpy(DEEP.astype(np.float32)).permute(2, 0, 1).to(dtype)
    found = PREDICTORS[DEEP_3](tensor)
    pixels = tensor.to(torch.float32).permute(1, 2, 0).numpy()
    wanted = PREDICTORS[DEEP_3](pixels)
    for kind in ARRAYS:
        array = getattr(found, kind).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(array, getattr(wanted, kind))
    parts = [part.std for _, part in PREDICTORS[DEEP_3].tiles(tensor)]
    assert torch.equal(torch.cat(parts, dim=1), found.std)


@pytest.mark.parametrize(
    ("units", "image", "part"),
    [
        (DEEP_3, RGB, "--value_range is 0,65535"),
        (DEEP_3, DEEP.astype(np.int32), "int32"),
        (DEEP_3, DEEP.astype(np.float32) * 4, "--value_range"),
        (DEEP_3, np.where(DEEP > 9000, np.nan, 1.0), "NaN"),
        (DEEP_3, DEEP[..., :2], "(h, w, 3)"),
        (DEEP_3, torch.zeros(4, 4, 4), "(3, h, w)"),
        (GREY_LEVELS, DEEP, "65535"),
        (GREY_LEVELS, torch.from_numpy(DEEP), "65535"),
    ],
)
def test_predictor_refuses_other_values(units: Units, image: Any, part: str) -> None:
    if isinstance(image, torch.Tensor) and image.shape[-1] == 3:
        image = image.permute(2, 0, 1)
    with pytest.raises(ValueError) as told:
        PREDICTORS[units](image)
    assert part in str(told.value)
