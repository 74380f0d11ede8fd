"""calibration.json: written and read back, damaged, and whom it fits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.calibrate.recalibration import ErrorsByStd
from sr_var.calibrate.record import (
    STD_FLOOR,
    Calibration,
    Member,
    StdMap,
    read_calibration,
    write_calibration,
)
from sr_var.values import Units
from utils.process.errors import CheckpointError, DataError

MEAN, VAR = "a" * 64, "b" * 64
CALIBRATION = Calibration(
    method="risk_control",
    level=0.9,
    factor=2.5,
    num_units=30,
    cluster="photograph",
    delta=0.1,
    mean_models=(MEAN,),
    var_models=(VAR, MEAN),
    images=(Member("cal/koala_003.png", "cal/koala", "c" * 64),),
    std_map=StdMap((1.0, 4.0), (2.0, 5.0)),
    found={"risk": 0.02},
)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "calibration.json")
    for one in (
        CALIBRATION,
        dataclasses.replace(CALIBRATION, method="conformal", delta=None, std_map=None),
        dataclasses.replace(CALIBRATION, units=Units(0, 65535, 1, is_8_bit=False)),
    ):
        write_calibration(path, one)
        assert read_calibration(path) == dataclasses.replace(one, path=path)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "hope"},
        {"level": 1.5},
        {"factor": "2"},
        {"factor": 0},
        {"num_units": 2.5},
        {"delta": None},
        {"cluster": "tile"},
        {"models": {"mean": ["x"], "var": []}},
        {"models": None},
        {"images": [{"name": "a"}]},
        {"images": [{"name": "a", "unit": 1, "sha256": "x"}]},
        {"std_map": {"predicted": [2, 1], "recalibrated": [1, 2]}},
        {"std_map": {"predicted": [], "recalibrated": []}},
        {"found": {"risk": "much"}},
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(str(path), CALIBRATION)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged") as error:
        read_calibration(str(path))
    assert str(path) in str(error.value) and "sr_calibrate.py" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--calibration .*does not exist"):
        read_calibration(str(tmp_path / "none.json"))


def test_half_width_is_the_factor_times_the_mapped_std_with_a_floor() -> None:
    std = np.array([0.0, 0.5, 1.0, 2.5, 4.0, 8.0], np.float32)
    expected = 2.5 * np.array([2 * STD_FLOOR, 1.0, 2.0, 3.5, 5.0, 10.0])
    found = CALIBRATION.half_width(std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_nets_are_refused() -> None:
    CALIBRATION.require_nets([MEAN], [VAR], "--mean_model_path M")
    for mean, var, kind in (("x" * 64, VAR, "mean"), (MEAN, "x" * 64, "var")):
        with pytest.raises(CheckpointError, match=f"another {kind} net.*sr_calibrate.py"):
            CALIBRATION.require_nets([mean], [var], "these results")
    with pytest.raises(CheckpointError, match="does not know its nets"):
        dataclasses.replace(CALIBRATION, mean_models=()).require_nets([MEAN], [VAR], "")


def test_images_that_took_part_are_refused_by_unit_and_by_content() -> None:
    CALIBRATION.require_apart(["test/cow_001.png"], lambda name: "d" * 64)
    with pytest.raises(DataError, match=r"koala_999\.png.*photograph"):
        CALIBRATION.require_apart(["cal/koala_999.png"], lambda name: "d" * 64)
    with pytest.raises(DataError, match="copy"):
        CALIBRATION.require_apart(["test/copy.png"], lambda name: "c" * 64)


def test_images_of_other_values_are_refused() -> None:
    CALIBRATION.require_units(Units(), "")
    with pytest.raises(DataError, match="65535"):
        CALIBRATION.require_units(Units(0, 65535, 1, is_8_bit=False), "this data set")


def test_isotonic_map_is_the_root_of_the_mean_squared_error_where_that_ascends() -> None:
    rng = np.random.default_rng(0)
    std = rng.choice([1.0, 3.0, 9.0, 27.0], 40_000)
    # errors of the third group are too small: it is pooled with the second one
    true = np.select([std == 1, std == 3, std == 9], [2.0, 6.0, 4.0], 30.0)
    errors = ErrorsByStd()
    errors.add(std, true * rng.standard_normal(len(std)))
    found = errors.std_map()(np.array([1.0, 3.0, 9.0, 27.0, 54.0]))
    pooled = np.sqrt((36 + 16) / 2)
    np.testing.assert_allclose(found, [2, pooled, pooled, 30, 60], rtol=0.03)
    with pytest.raises(ValueError, match="no pixels"):
        ErrorsByStd().std_map()
