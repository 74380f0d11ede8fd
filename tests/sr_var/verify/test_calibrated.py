"""sr_var_verification.py --calibration: coverage before and after, on images that took no part."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tests.sr_var.calibrate.made import argv, calibrate_argv, make_held_out, stamp
from tests.sr_var.hand_made import Results
from tests.tiny import done, run, tree
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA

# tiles of ten photographs each
HELD_OUT = [f"cal/p{i}_{k:03d}.png" for i in range(10) for k in range(2)]
TESTED = [f"test/q{i}_{k:03d}.png" for i in range(6) for k in range(1 + (i == 0))]


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Of nets whose std is half of what errors show."""
    made = make_held_out(tmp_path / "held_out", HELD_OUT, scale=2.0)
    done("sr_calibrate", calibrate_argv(made))
    return tmp_path / "held_out" / "out" / "calibration.json"


@pytest.fixture
def tested(tmp_path: Path) -> Results:
    """Results of the same nets on other photographs."""
    return make_held_out(tmp_path / "tested", TESTED, seed=1, scale=2.0)


def _argv(made: Results, calibration: Path, **changes: Any) -> list[str]:
    return argv(made, num_samples=0, calibration=calibration, **changes)


def test_coverage_stands_side_by_side_before_and_after(
    tested: Results, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_var.verify.numbers.intervals.MIN_UNITS", 6)
    said = done("sr_var_verification", _argv(tested, calibration, full_table=True)).out
    summary = json.loads((tested.root / "log" / "results.json").read_text(encoding="utf-8"))
    found, made = summary["calibrated"], json.loads(calibration.read_text(encoding="utf-8"))
    # 90 % of a normal law at half the std, and what the calibration makes of it
    raw = 2 * NormalDist().cdf(NormalDist().inv_cdf(0.95) / 2) - 1
    assert found["raw_coverage"] == pytest.approx(raw, abs=0.02)
    factor = made["factor"]
    assert found["coverage"] == pytest.approx(2 * NormalDist().cdf(factor / 2) - 1, abs=0.02)
    assert 0.9 < found["coverage"] < 1
    wider = factor / NormalDist().inv_cdf(0.95)
    assert found["mean_width"] / found["raw_mean_width"] == pytest.approx(wider)
    assert (found["num_units"], found["num_test_units"], found["factor"]) == (10, 6, factor)
    low, high = summary["intervals"]["calibrated.coverage"]
    assert low <= found["coverage"] <= high
    for part in ("coverage of the 90 % interval", "Calibrated on 10 other photographs", "before"):
        assert part in said
    page = (tested.root / "log" / "report.html").read_text(encoding="utf-8")
    assert "Intervals as they come, and calibrated" in page and "over photographs" in page


def test_photographs_weigh_alike_however_many_tiles_they_have(
    tested: Results, calibration: Path
) -> None:
    done("sr_var_verification", _argv(tested, calibration))
    with open(tested.root / "log" / "results.csv", newline="", encoding="utf-8") as file:
        rows = {row["name"]: float(row["calibrated.coverage"]) for row in csv.DictReader(file)}
    assert set(rows) == set(TESTED)
    of_first = np.mean([rows[name] for name in TESTED if name.startswith("test/q0")])
    mean = np.mean([of_first, *(rows[name] for name in TESTED[2:])])
    summary = json.loads((tested.root / "log" / "results.json").read_text(encoding="utf-8"))
    assert summary["calibrated"]["coverage"] == pytest.approx(mean)


def test_without_a_calibration_nothing_is_said_of_one(tested: Results) -> None:
    said = done("sr_var_verification", argv(tested, num_samples=0)).out
    summary = json.loads((tested.root / "log" / "results.json").read_text(encoding="utf-8"))
    assert "calibrated" not in summary and "Calibrated" not in said


def _refused(made: Results, calibration: Path, code: int, *parts: str) -> None:
    before = {name for name in tree(made.root / "log") if "args" not in name}
    outcome = run("sr_var_verification", _argv(made, calibration))
    assert outcome.code == code and all(part in outcome.err for part in parts), outcome.err
    after = {name for name in tree(made.root / "log") if "results" in name or "report" in name}
    assert after <= before


def test_images_that_took_part_are_refused(
    tmp_path: Path, tested: Results, calibration: Path
) -> None:
    held_out = Results(tmp_path / "held_out")
    _refused(held_out, calibration, EXIT_DATA, "cal/p0_000.png", "photograph", "took part")
    # the same picture under another name
    image = tested.root / "images" / TESTED[3]
    shutil.copy(tmp_path / "held_out" / "images" / HELD_OUT[0], image)
    _refused(tested, calibration, EXIT_DATA, TESTED[3], "took part")


def test_a_calibration_of_other_nets_is_refused(tested: Results, calibration: Path) -> None:
    stamp(tested, "d" * 64, "e" * 64)
    _refused(tested, calibration, EXIT_CHECKPOINT, "another mean net", "aaaaaaaaaaaa", "d" * 12)


def test_a_calibration_of_unknown_nets_is_refused(tmp_path: Path, tested: Results) -> None:
    made = make_held_out(tmp_path / "unknown", HELD_OUT, is_stamped=False)
    said = done("sr_calibrate", calibrate_argv(made)).out
    assert "warning: the results have no stamp" in said
    path = made.root / "out" / "calibration.json"
    _refused(tested, path, EXIT_CHECKPOINT, "does not know its nets")
