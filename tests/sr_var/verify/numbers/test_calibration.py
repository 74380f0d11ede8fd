"""Calibration: closed forms, laws that are calibrated by construction, histograms and sorting."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.calibration import (
    FRACTIONS,
    VARIANCE_FLOOR,
    Histograms,
    ause,
    calibrate,
    crps_of_normal,
    curves,
    ence,
)

Array = NDArray[np.float64]
SHAPE = (100, 100, 3)


def _flat(value: float) -> Array:
    return np.full((4, 4, 3), value)


def test_metrics_of_one_error_have_their_closed_forms() -> None:
    """y − m = 6, v = 9: z² = 4, outside the 95 % interval of half-width 1.96 · 3 = 5.88."""
    means, _ = calibrate(_flat(106.0), _flat(100.0), _flat(9.0))
    half_width = NormalDist().inv_cdf(0.95) * 3
    assert means == pytest.approx(
        {
            "z2": 4.0,
            "nll": 0.5 * (math.log(2 * math.pi * 9) + 4),
            # z (2Φ(z) − 1) + 2φ(z) − 1/√π at z = 2: 1.909 + 0.10798 − 0.56419, times σ = 3
            "crps": 4.3583795,
            "coverage_50": 0.0,
            "coverage_68": 0.0,
            "coverage_90": 0.0,
            "coverage_95": 0.0,
            "sharpness_mean_std": 3.0,
            "mean_variance": 9.0,
            "interval_score_90": 2 * half_width + 20 * (6 - half_width),
            "num_floored": 0,
        }
    )


@pytest.mark.parametrize(("error", "std"), [(0.0, 1.0), (3.0, 2.0), (-3.0, 2.0), (40.0, 5.0)])
def test_crps_is_the_integral_that_defines_it(error: float, std: float) -> None:
    """∫ (F(t) − 1{t ≥ y})² dt of N(0, σ²) at y = error, on a fine grid."""
    t = np.linspace(-80, 120, 2_000_001)
    law = NormalDist(0, std)
    below = np.array([law.cdf(value) for value in t[::200]])
    cdf = np.interp(t, t[::200], below)
    expected = float(np.sum((cdf - (t >= error)) ** 2) * (t[1] - t[0]))
    found = float(crps_of_normal(np.array(error), np.array(std)))
    assert found == pytest.approx(expected, rel=1e-3)


def test_crps_of_a_law_without_spread_is_the_absolute_error_and_scales_with_the_unit() -> None:
    error = np.array([0.0, 0.5, 7.0])
    np.testing.assert_allclose(crps_of_normal(error, np.full(3, 1e-9)), error, atol=1e-8)
    one, ten = (crps_of_normal(c * error, np.full(3, c * 2.0)) for c in (1.0, 10.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-12)


def test_right_law_has_the_lowest_crps() -> None:
    """A proper score: too wide, too narrow and shifted laws score higher on draws of the law."""
    y, mean, v = _calibrated()
    scores = [
        calibrate(y, mean + shift, v * width)[0]["crps"]
        for shift, width in ((0, 1), (0, 1.5), (0, 0.6), (2.0, 1))
    ]
    assert min(scores) == scores[0]


def test_interval_that_covers_scores_its_width() -> None:
    means, _ = calibrate(_flat(102.0), _flat(100.0), _flat(9.0))  # |z| = 2/3 < z of 50 %: 0.674
    assert means["interval_score_90"] == pytest.approx(2 * NormalDist().inv_cdf(0.95) * 3)
    assert [means[f"coverage_{p}"] for p in (50, 68, 90, 95)] == [1, 1, 1, 1]


def test_variances_below_that_of_rounding_are_raised_to_it_and_counted() -> None:
    variance = np.array([-5.0, 0.0, 0.08, 1.0]).reshape(2, 2, 1)
    before = variance.copy()
    means, _ = calibrate(np.ones((2, 2, 1)), np.zeros((2, 2, 1)), variance)
    assert means["num_floored"] == 3
    assert means["z2"] == pytest.approx((3 / VARIANCE_FLOOR + 1) / 4)
    np.testing.assert_array_equal(variance, before)


def _calibrated(seed: int = 0) -> tuple[Array, Array, Array]:
    """y drawn from N(m, v) exactly."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(50, 200, SHAPE), np.exp(rng.uniform(0, 3, SHAPE))
    return mean + std * rng.standard_normal(SHAPE), mean, std**2


def test_right_law_is_calibrated_within_its_standard_errors() -> None:
    y, mean, v = _calibrated()
    means, sums = calibrate(y, mean, v)
    n = y.size
    assert abs(means["z2"] - 1) < 4 * math.sqrt(2 / n)
    entropy = 0.5 * np.mean(np.log(2 * np.pi * math.e * v))
    assert abs(means["nll"] - entropy) < 4 * math.sqrt(0.5 / n)
    for p in (50, 68, 90, 95):
        share = p / 100
        error = abs(means[f"coverage_{p}"] - share)
        assert error < 4 * math.sqrt(share * (1 - share) / n)
    # 20 bins of n/20 pixels: E|rmse/σ − 1| = √(2/π) √(1/(2 n/20))
    assert ence(sums) < 2 * math.sqrt(2 / math.pi) * math.sqrt(10 / n)


def test_stds_that_are_half_of_the_truth_show_as_such() -> None:
    """z² is 4, every bin's rmse is twice its predicted std: ENCE 1."""
    y, mean, v = _calibrated(1)
    means, sums = calibrate(y, mean, v / 4)
    assert means["z2"] == pytest.approx(4, rel=0.03)
    assert ence(sums) == pytest.approx(1, rel=0.03)
    expected = 2 * NormalDist().cdf(NormalDist().inv_cdf(0.84) / 2) - 1
    assert means["coverage_68"] == pytest.approx(expected, abs=0.01)


def test_sharpness_and_interval_score_of_a_normal_law_have_their_closed_forms() -> None:
    """E max(|z| − c, 0) = 2 (φ(c) − c (1 − Φ(c)))."""
    y, mean, v = _calibrated(2)
    means, _ = calibrate(y, mean, v)
    c = NormalDist().inv_cdf(0.95)
    score = 2 * c + 40 * (NormalDist().pdf(c) - c * 0.05)
    expected = score * np.sqrt(v).mean()
    assert means["interval_score_90"] == pytest.approx(expected, rel=0.01)
    assert means["sharpness_mean_std"] == pytest.approx(np.sqrt(v).mean())


def _exact_ence(error: Array, v: Array) -> float:
    order = np.argsort(v.ravel())
    parts = np.array_split(order, 20)
    predicted = np.array([math.sqrt(v.ravel()[part].mean()) for part in parts])
    observed = np.array([math.sqrt((error.ravel()[part] ** 2).mean()) for part in parts])
    return float(np.mean(np.abs(predicted - observed) / predicted))


def _exact_curves(error: Array, v: Array) -> tuple[Array, Array]:
    by_v = (error.ravel() ** 2)[np.argsort(v.ravel())]
    by_error = np.sort(error.ravel() ** 2)
    kept = np.rint(error.size * (1 - FRACTIONS)).astype(int)
    return tuple(np.sqrt(np.cumsum(s)[kept - 1] / kept) for s in (by_v, by_error))  # type: ignore


def test_histograms_agree_with_sorting_all_pixels() -> None:
    """ENCE, both curves and the area to 0.2 % of their size, for a law that is off."""
    y, mean, v = _calibrated(3)
    wrong = v ** (0.7) * 3
    _, sums = calibrate(y, mean, wrong)
    assert ence(sums) == pytest.approx(_exact_ence(y - mean, wrong), rel=2e-3)
    rmse, oracle = _exact_curves(y - mean, wrong)
    drawn = curves(sums)["sparsification"]
    np.testing.assert_allclose(drawn["rmse"], rmse, rtol=2e-3)
    np.testing.assert_allclose(drawn["oracle_rmse"], oracle, rtol=2e-3, atol=0.02)
    gap = (rmse - oracle) / rmse[0]
    assert ause(sums) == pytest.approx(float(np.sum(gap[1:] + gap[:-1]) / 200), rel=2e-3)


def test_std_that_orders_the_errors_has_no_sparsification_error() -> None:
    error = np.random.default_rng(4).uniform(1, 100, SHAPE)
    _, sums = calibrate(error, np.zeros(SHAPE), error**2)
    assert ause(sums) == pytest.approx(0, abs=2e-3)
    assert ence(sums) == pytest.approx(0, abs=2e-3)
    # errors uniform on [1, 100]: without the largest tenth they are uniform on [1, 90.1]
    drawn = curves(sums)["sparsification"]
    assert drawn["rmse"][10] == pytest.approx(math.sqrt((90.1**3 - 1) / 3 / 89.1), rel=5e-3)


def test_flat_std_removes_pixels_at_random() -> None:
    """Its curve stays at the rmse of all pixels."""
    error = np.random.default_rng(5).normal(0, 10, SHAPE)
    _, sums = calibrate(error, np.zeros(SHAPE), np.full(SHAPE, 100.0))
    drawn = curves(sums)["sparsification"]
    np.testing.assert_allclose(drawn["rmse"], np.sqrt((error**2).mean()), rtol=1e-9)
    assert ence(sums) == pytest.approx(0, abs=0.01)


def test_histograms_of_two_halves_add_up_to_those_of_the_whole() -> None:
    y, mean, v = _calibrated(6)
    _, whole = calibrate(y, mean, v)
    total = Histograms()
    for half in (slice(0, 37), slice(37, None)):
        total.add(calibrate(y[half], mean[half], v[half])[1])
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(total, name), values, rtol=1e-12)


def test_curves_have_the_lengths_that_are_drawn() -> None:
    _, sums = calibrate(*_calibrated(7))
    drawn: dict[str, Any] = curves(sums)
    assert {len(values) for values in drawn["reliability"].values()} == {20}
    assert sum(drawn["reliability"]["count"]) == pytest.approx(30_000)
    assert np.all(np.diff(drawn["reliability"]["predicted_std"]) > 0)
    coverage = drawn["coverage"]
    assert len(coverage["nominal"]) == len(coverage["observed"])
    np.testing.assert_allclose(coverage["observed"], coverage["nominal"], atol=0.02)


def test_stds_beyond_the_histogram_count_in_its_last_bins() -> None:
    means, sums = calibrate(_flat(0.0), _flat(900.0), _flat(1e9))
    assert sums.count[-1] == sums.error_count[-1] == 48
    assert means["z2"] == pytest.approx(900**2 / 1e9)
    assert ence(sums) == pytest.approx(1 - 900 / math.sqrt(1e9))
