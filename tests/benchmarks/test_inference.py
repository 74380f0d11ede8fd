"""The population has the errors that it says, and intervals and verdicts hold on it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.inference import (
    AT_THE_MARGIN,
    EXACT,
    MARGIN,
    NETS,
    coverage_of_ause,
    independent,
    repeat,
    tiles,
)
from benchmarks.inference_data import Population, populations
from sr_var.verify.numbers.intervals import MIN_UNITS
from sr_var.verify.numbers.metrics import pooled_metrics
from sr_var.verify.numbers.verdict import VERDICT_METRICS

NUM = 200
# two standard errors of a share near p in NUM repetitions
SLACK = {share: 2 * math.sqrt(share * (1 - share) / NUM) for share in (0.05, 0.95)}


@pytest.fixture(scope="module")
def of() -> dict[str, Population]:
    return populations("data/demo", NETS, num_pieces=4, num_histograms=1)


def test_nets_err_as_much_as_they_say(of: dict[str, Population]) -> None:
    """Within the noise of 276 images: 0.006/√276 of the square, four times."""
    for net in NETS:
        found = pooled_metrics({name: v.mean() for name, v in of[net.name].means.items()})
        names = ("mean.relative_mse", "var.relative_squared_error")
        squares = [float(found[name]) for name in names]
        variance_error = math.hypot(net.variance_error, net.bias)
        assert squares[0] == pytest.approx(net.mean_error**2, abs=0.0015)
        assert squares[1] == pytest.approx(variance_error**2, rel=0.25, abs=0.002)


def test_verdicts_hold_at_the_fewest_images(of: dict[str, Population]) -> None:
    draw = independent(len(of[EXACT.name].photo), MIN_UNITS)
    exact = repeat(of[EXACT.name], draw, NUM)
    assert exact.is_any_different <= 0.05 + SLACK[0.05]
    assert exact.equivalent["var.relative_bias"] > 0.9
    border = repeat(of[AT_THE_MARGIN.name], draw, NUM)
    for name in VERDICT_METRICS:
        assert border.falsely_equivalent[name] <= 0.05 + SLACK[0.05], name
        assert abs(exact.covered[name] - 0.95) <= 0.02 + SLACK[0.95], name
        assert abs(border.covered[name] - 0.95) <= 0.02 + SLACK[0.95], name
    assert AT_THE_MARGIN.mean_error == MARGIN


def test_four_images_would_be_too_few(of: dict[str, Population]) -> None:
    """So the test above can fail."""
    found = repeat(of[AT_THE_MARGIN.name], independent(len(of[EXACT.name].photo), 4), NUM)
    assert found.covered["mean.relative_rms_error"] < 0.92


def test_tiles_hold_by_photograph_alone(of: dict[str, Population]) -> None:
    population = of[EXACT.name]
    whole, single = (
        repeat(population, tiles(population.photo, MIN_UNITS, 4, by_photograph=by), NUM)
        for by in (True, False)
    )
    names = ("var.var_error", "calibration.nets.crps")
    for name in names:
        assert abs(whole.covered[name] - 0.95) <= 0.02 + SLACK[0.95], name
        assert single.covered[name] < whole.covered[name], name


def test_interval_of_ause_holds(of: dict[str, Population]) -> None:
    found = coverage_of_ause(of[EXACT.name], MIN_UNITS, 30)
    assert found >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 30)
