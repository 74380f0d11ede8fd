"""References of a normal law: against draws of it, by n, and by how much the stds vary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.calibration import COVERAGES, Histograms, ause, calibrate, ence
from sr_var.verify.numbers.reference import (
    expected_histograms,
    expected_of_normal,
    expected_of_order,
    student,
)

Array = NDArray[np.float64]
NUM = 200_000


def _drawn(spread: float, num_samples: int | None) -> tuple[dict[str, float], Histograms]:
    """Metrics of an exact route on 200 000 pixels; ln σ is normal with this std."""
    rng = np.random.default_rng(7)
    std = np.exp(rng.normal(2.0, spread, NUM))
    y = std * rng.standard_normal(NUM)
    mean, v = np.zeros(NUM), std**2
    if num_samples is not None:
        n = num_samples
        mean = std * rng.standard_normal(NUM) / math.sqrt(n)
        v = v * rng.chisquare(n - 1, NUM) / (n - 1) * (1 + 1 / n)
    return calibrate(y, mean, v)


@pytest.mark.parametrize("num_samples", [None, 8, 20, 100])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_an_exact_route_shows_what_is_expected_of_it(
    spread: float, num_samples: int | None
) -> None:
    """Four standard errors of 200 000 draws: z² √(2/N) (1.5 times that at n = 8), shares √(¼/N)."""
    means, sums = _drawn(spread, num_samples)
    expected = expected_of_normal(means, num_samples)
    of_order, _ = expected_of_order(sums, num_samples)
    assert means["z2"] == pytest.approx(expected["z2"], rel=0.025)
    assert means["nll"] == pytest.approx(expected["nll"], abs=0.014)
    for name in ("crps", "interval_score_90"):
        assert means[name] == pytest.approx(expected[name], rel=0.015)
    for p in COVERAGES:
        assert means[f"coverage_{p}"] == pytest.approx(expected[f"coverage_{p}"], abs=0.0045)
    # the floor of 20 bins of 10 000 pixels is 0.006; at n = 8 the shrunk law is not quite that of σ
    assert ence(sums) == pytest.approx(of_order["ence"], abs=0.003, rel=0.035)
    assert ause(sums) == pytest.approx(of_order["ause"], abs=0.003, rel=0.015)


def test_twenty_exact_samples_are_worse_by_known_amounts() -> None:
    """z² (n − 1)/(n − 3); likelihood by Student's law; score +6 %, CRPS +3 %."""
    law, of_samples = student(None), student(20)
    assert of_samples.z2 == pytest.approx(19 / 17)
    mean_std = 10.0
    exact = {"z2": 1.0, "nll": 0.5 * math.log(2 * math.pi * 100) + 0.5}
    exact["sharpness_mean_std"] = mean_std
    # what the same pixels show with k₂(1 + 1/20) of χ²₁₉: ⟨ln⟩ moves by ψ(9.5) − ln 9.5 + ln 1.05
    log_mean = -0.0535543 + math.log(1.05)
    seen = {"z2": 0.0, "nll": 0.5 * (math.log(2 * math.pi * 100) + log_mean)}
    c_19 = math.exp(math.lgamma(10) - math.lgamma(9.5)) / math.sqrt(9.5) * math.sqrt(1.05)
    seen["sharpness_mean_std"] = mean_std * c_19
    one, twenty = expected_of_normal(exact, None), expected_of_normal(seen, 20)
    assert one["nll"] == pytest.approx(exact["nll"])
    assert twenty["nll"] - one["nll"] == pytest.approx(0.0564, abs=1e-4)
    assert twenty["interval_score_90"] / one["interval_score_90"] == pytest.approx(1.063, abs=2e-3)
    assert twenty["crps"] / one["crps"] == pytest.approx(1.033, abs=2e-3)
    assert law.crps == pytest.approx(1 / math.sqrt(math.pi))


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 0.583), (0.5, 0.25), (0.95, 0.10)])
def test_area_of_exact_nets_depends_on_the_spread_of_their_stds(
    spread: float, expected: float
) -> None:
    _, sums = _drawn(spread, None)
    assert expected_of_order(sums, None)[0]["ause"] == pytest.approx(expected, abs=0.01)


def test_expected_histograms_hold_every_pixel() -> None:
    _, sums = _drawn(0.7, 20)
    for num_samples in (None, 20):
        found, _ = expected_histograms(sums, num_samples)
        for counts in (found.count, found.error_count):
            assert counts.sum() == pytest.approx(NUM)
        assert found.error_square.sum() == pytest.approx(found.square.sum())
        assert found.square.sum() == pytest.approx(found.variance.sum())
        assert found.variance.sum() == pytest.approx(sums.variance.sum(), rel=1e-9)


def test_three_samples_have_no_mean_squared_score() -> None:
    means, _ = _drawn(0.3, 3)
    expected = expected_of_normal(means, 3)
    assert math.isinf(expected["z2"]) and math.isinf(expected["nll"])
    assert math.isfinite(expected["crps"]) and expected["coverage_95"] == pytest.approx(
        0.811, abs=1e-3
    )
