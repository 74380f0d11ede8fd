"""Calibrated intervals of `Predictor` and sr_predict.py: from test results to arrays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.calibrate.record import (
    STD_FLOOR,
    Calibration,
    Member,
    StdMap,
    interval_half_width,
    read_calibration,
    write_calibration,
)
from sr_var.predict.predictor import Predictor
from sr_var.values import Units
from tests.pipeline import Pipeline
from tests.sr_var.predict.conftest import Nets
from tests.sr_var.predict.pairs import FACTOR, subpixel_pair
from tests.tiny import done, photo, run, words
from utils.files.atomic import sha256_of
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_USAGE, CheckpointError

CALIBRATION = Calibration(
    method="conformal",
    level=0.8,
    factor=2.5,
    num_units=12,
    cluster="photograph",
    mean_models=("m",),
    var_models=("v", "m"),
)
IMAGE = photo(0, (9, 7))


def test_interval_is_the_factor_times_the_std() -> None:
    plain = Predictor(subpixel_pair())(IMAGE)
    predictor = Predictor(subpixel_pair(), calibration=CALIBRATION)
    found = predictor(IMAGE)
    half = 2.5 * np.maximum(plain.std, STD_FLOOR)
    np.testing.assert_allclose(found.upper - found.mean, half, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.mean - found.lower, half, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found.std, plain.std)
    assert predictor.level == 0.8
    assert predictor.intervals() == {"is_calibrated": True, **CALIBRATION.record()}
    assert Predictor(subpixel_pair()).intervals() == {
        "is_calibrated": False,
        "method": "normal",
        "level": 0.9,
        "factor": interval_half_width(0.9),
    }


def test_floats_and_grey_levels_get_one_interval() -> None:
    """The floor and the map of the std are in grey levels."""
    mapped = dataclasses.replace(CALIBRATION, std_map=StdMap((1.0, 20.0), (3.0, 30.0)))
    predictor = Predictor(subpixel_pair(), calibration=mapped)
    grey, unit = predictor(IMAGE), predictor(IMAGE.astype(np.float32) / 255)
    for one in dataclasses.fields(grey):
        a, b = getattr(grey, one.name), getattr(unit, one.name)
        np.testing.assert_allclose(a, 255 * b, rtol=1e-4, atol=2e-3)
    plain = Predictor(subpixel_pair())(IMAGE)
    expected = mapped.std(plain.std)
    np.testing.assert_allclose(grey.std, expected, rtol=1e-5)
    np.testing.assert_allclose(grey.upper - grey.lower, 5 * expected, rtol=1e-3)


def test_images_of_another_range_get_the_same_interval_in_their_unit() -> None:
    wide = dataclasses.replace(subpixel_pair(), units=Units(0, 65535, 3, is_8_bit=False))
    mapped = dataclasses.replace(CALIBRATION, std_map=StdMap((1.0, 20.0), (3.0, 30.0)))
    grey = Predictor(subpixel_pair(), calibration=mapped)(IMAGE)
    found = Predictor(wide, calibration=mapped)(IMAGE.astype(np.uint16) * 257)
    for one in dataclasses.fields(grey):
        a, b = getattr(grey, one.name), getattr(found, one.name)
        np.testing.assert_allclose(a, b / 257, rtol=1e-4, atol=2e-3)


def test_another_level_and_other_networks_are_refused() -> None:
    assert Predictor(subpixel_pair(), calibration=CALIBRATION, level=0.8).level == 0.8
    with pytest.raises(ValueError, match=r"--level 0\.9 is not that of"):
        Predictor(subpixel_pair(), calibration=CALIBRATION, level=0.9)
    other = dataclasses.replace(CALIBRATION, var_models=("w",))
    with pytest.raises(CheckpointError, match="another var net"):
        Predictor(subpixel_pair(), calibration=other)


@pytest.fixture
def calibration(tmp_path: Path, subpixel_nets: Nets) -> Path:
    """A file that fits the networks."""
    digests = [sha256_of(path) for path in (subpixel_nets.mean, subpixel_nets.var)]
    models = {"mean_models": (digests[0],), "var_models": (digests[1], digests[0])}
    path = tmp_path / "calibration.json"
    write_calibration(str(path), dataclasses.replace(CALIBRATION, **models))  # type: ignore[arg-type]
    return path


def _argv(nets: Nets, tmp_path: Path, **changes: Any) -> list[str]:
    folders = {"output_dir": tmp_path / "out", "log_dir": tmp_path / "log"}
    return words({**nets.flags, "input": tmp_path / "low", **folders, **changes})


def _array(tmp_path: Path, name: str) -> Any:
    return np.load(tmp_path / "out" / f"{name}.npy")


def test_results_say_that_they_are_calibrated(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, calibration: Path
) -> None:
    argv = _argv(subpixel_nets, tmp_path, calibration=calibration, truth=tmp_path / "high")
    said = done("sr_predict", argv).out
    assert "calibrated on 12 photographs: λ 2.500, 80 % expected of a further photograph" in said
    assert "% in the calibrated 80 % interval" in said
    mean, std, upper = (
        np.load(tmp_path / "out" / f"a_{of}.npy") for of in ("mean", "std", "upper")
    )
    np.testing.assert_allclose(upper - mean, 2.5 * np.maximum(std, STD_FLOOR), rtol=1e-3, atol=1e-3)
    summary = json.loads((tmp_path / "out" / "predict.json").read_text())
    expected = {"is_calibrated": True, **CALIBRATION.record()}
    assert summary["intervals"] == summary["images"]["a"]["intervals"] == expected
    assert summary["settings"]["calibration"] == sha256_of(calibration)
    assert summary["settings"]["level"] == 0.8
    outcome = run("sr_predict", _argv(subpixel_nets, tmp_path))
    assert outcome.code == EXIT_DATA and "--calibration" in outcome.err


def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, unet_nets: Nets, calibration: Path
) -> None:
    def refused(nets: Nets, **changes: Any) -> tuple[int, str]:
        outcome = run("sr_predict", _argv(nets, tmp_path, calibration=calibration, **changes))
        assert not (tmp_path / "out").exists()
        return outcome.code, outcome.err

    code, said = refused(unet_nets)
    assert code == EXIT_CHECKPOINT and "another mean net" in said and "sr_calibrate.py" in said
    code, said = refused(subpixel_nets, level=0.95)
    assert code == EXIT_USAGE and "--level 0.95" in said
    calibration.write_text("{}")
    code, said = refused(subpixel_nets)
    assert code == EXIT_DATA and str(calibration) in said
    calibration.unlink()
    assert refused(subpixel_nets)[0] == EXIT_DATA


def test_a_truth_that_took_part_is_told(
    tmp_path: Path, photos: Path, subpixel_nets: Nets, calibration: Path
) -> None:
    digest = sha256_of(tmp_path / "high" / "b.png")
    members = (Member("b.png", "b.png", digest),)
    made = dataclasses.replace(read_calibration(str(calibration)), images=members)
    write_calibration(str(calibration), made)
    argv = _argv(subpixel_nets, tmp_path, calibration=calibration, truth=tmp_path / "high")
    warnings = [line for line in done("sr_predict", argv).out.splitlines() if "took part" in line]
    assert len(warnings) == 1 and "b.png" in warnings[0]


def test_from_the_results_of_the_tests_to_calibrated_intervals(
    tmp_path: Path, photos: Path, pipeline: Pipeline, unet_nets: Nets
) -> None:
    """Three images are enough for 70 %."""
    made = {name: pipeline.verification_flags[name] for name in (
        "data_dir", "data_info_dict_path", "large_size", "sr_model_output_dir",
        "mean_model_step", "var_model_step",
    )}  # fmt: skip
    folders = {"output_dir": tmp_path / "made", "log_dir": tmp_path / "log"}
    done("sr_calibrate", words(made, folders, level=0.7))
    path = tmp_path / "made" / "calibration.json"
    done("sr_predict", _argv(unet_nets, tmp_path, calibration=path))
    factor = read_calibration(str(path)).factor
    mean, std, lower = (
        np.load(tmp_path / "out" / f"b_{of}.npy") for of in ("mean", "std", "lower")
    )
    assert mean.shape == (8 * FACTOR, 8 * FACTOR, 3)
    half = factor * np.maximum(std, STD_FLOOR)
    np.testing.assert_allclose(mean - lower, half, rtol=1e-3, atol=1e-3)
