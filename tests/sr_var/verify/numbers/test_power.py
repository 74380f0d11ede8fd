"""Images that a verdict takes: by simulation, by the flags, and by an earlier results.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_var.verify.numbers.intervals import MIN_UNITS, every_one, jackknife_interval, leave_one_out
from sr_var.verify.numbers.power import (
    POWER,
    images_needed,
    needs,
    needs_by_pilot,
    noise_scatter,
    pilot_text,
    power_text,
    read_pilot,
    units_needed,
)
from sr_var.verify.numbers.verdict import VERDICT_LEVEL
from utils.process.errors import DataError


def test_verdict_is_reached_as_often_as_planned() -> None:
    """80 % of 600 runs with normal units: two standard errors are 3.3 %, whole units are 1 %."""
    scatter, distance = 1.0, 0.25
    count = units_needed(scatter, distance)
    assert count is not None and count > MIN_UNITS
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        values = rng.normal(0, scatter, count)
        left_out = leave_one_out({"x": values}, lambda m: m, every_one(count, "image"))["x"]
        _, high = jackknife_interval(float(values.mean()), left_out, VERDICT_LEVEL) or (0, 9)
        hits += high < distance
    assert hits / 600 == pytest.approx(POWER, abs=0.05)


def test_needs_fall_with_samples_and_size_and_never_below_what_intervals_take() -> None:
    few = images_needed(0.05, 5, 8, 0.0)
    more = images_needed(0.05, 20, 8, 0.0)
    assert few is not None and more is not None and few > more >= MIN_UNITS
    assert images_needed(0.05, 100, 64, 0.5) == MIN_UNITS
    assert (images_needed(0.05, 5, 8, 0.5) or 0) > few  # nearer to the margin
    assert images_needed(0.05, 3, 64, 0.0) is None and units_needed(1.0, 0.0) is None
    assert units_needed(1e6, 1.0) is None
    (row,) = needs(0.05, [20], 8)
    assert row == {"num_samples": 20, "exact": more, "half": images_needed(0.05, 20, 8, 0.5)}
    assert f"{more}" in power_text(0.05, [row])
    assert "too many" in power_text(0.001, needs(0.001, [3], 8))
    assert noise_scatter("mean", 20, 8) == pytest.approx(2 * noise_scatter("mean", 20, 16))


def _pilot(tmp_path: Path, **changes: Any) -> str:
    def part(value: float, error: float | None) -> dict[str, Any]:
        return {"verdict": None, "value": value, "interval": None, "standard_error": error}

    content = {
        "num_samples": 20,
        "clusters": {"kind": "photograph", "count": 16},
        "verdict": {
            "mean": part(0.22, 0.004),
            "variance": part(-0.01, 0.0004),
            "bias": part(-0.03, None),
        },
        **changes,
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_pilot_says_which_word_is_likely_and_what_it_takes(tmp_path: Path) -> None:
    pilot = read_pilot(_pilot(tmp_path))
    assert pilot.num_units == 16 and set(pilot.parts) == {"mean", "variance"}
    assert pilot.parts["mean"].scatter == pytest.approx(0.016)
    assert pilot.parts["variance"].value == pytest.approx(-1e-4)  # a square below 0 by noise
    found = needs_by_pilot(pilot, 0.05, 20)
    assert found["mean"] == ("different", units_needed(0.016, 0.22**2 - 0.05**2))
    assert found["variance"] == ("equivalent", units_needed(0.0016, 0.05**2 + 1e-4))
    # a quarter of the samples: noise grows fourfold at most; more samples help nothing for sure
    assert needs_by_pilot(pilot, 0.05, 5)["mean"][1] == units_needed(0.064, 0.22**2 - 0.05**2)
    assert needs_by_pilot(pilot, 0.05, 100) == found
    said = pilot_text(pilot, 0.05, [20])
    assert "16 photographs and 20 samples" in said and "mean different, 100" in said
    assert f"±{100 / math.sqrt(30):.0f} %" in said


@pytest.mark.parametrize(
    "changes", [{"verdict": {}}, {"clusters": {"kind": "image", "count": 1}}, {"clusters": None}]
)
def test_pilot_without_standard_errors_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"results\.json .*made by this version"):
        read_pilot(_pilot(tmp_path, **changes))
    with pytest.raises(DataError, match=r"--pilot .*no such file"):
        read_pilot(str(tmp_path / "none.json"))
