"""Both routes against the oracle's exact moments: metrics in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.moments import Truth
from sr_var.verify.numbers.floors import truth_means, truth_metrics, truth_text
from sr_var.verify.numbers.intervals import every_one
from utils.metrics import Moments

Array = NDArray[np.float64]
SIZE = 8
SHAPE = (SIZE, SIZE, 3)


def test_metrics_against_the_exact_law_have_their_closed_forms() -> None:
    """μ = 100, v = 16; nets 102 and 25 (or −1), samples 101 and 9."""
    v = np.full(SHAPE, 16.0)
    truth = Truth(np.full(SHAPE, 100.0), v, 0 * v, 3 * v**2)
    variance = np.full(SHAPE, 25.0)
    variance[:4] = -1.0
    samples = np.full(SHAPE, 101.0), np.full(SHAPE, 9.0)
    metrics = truth_metrics(truth_means(truth, (np.full(SHAPE, 102.0), variance), samples, 100))
    found = {name.removeprefix("truth."): float(value) for name, value in metrics.items()}
    assert found["nets.relative_mse"] == pytest.approx(4 / 16)
    assert found["nets.relative_var_error"] == pytest.approx((16 + 9) / 2 / 16)
    assert found["nets.relative_rms_error"] == pytest.approx(math.sqrt((256 + 81) / 2) / 16)
    assert found["nets.var_bias"] == pytest.approx(12.5 / 16 - 1)
    assert found["nets.var_error"] == pytest.approx(12.5)
    assert found["nets.std_error"] == pytest.approx((4 + 1) / 2)
    assert found["samples.relative_mse"] == pytest.approx(1 / 16)
    assert found["samples.std_error"] == pytest.approx(1.0)
    assert found["expected.relative_mse"] == pytest.approx(0.01)
    assert found["expected.var_bias"] == 0
    # √(2/π) √(2/99) for normal samples, to the accuracy of the normal error
    normal = math.sqrt(2 / math.pi) * math.sqrt(2 / 99)
    assert found["expected.relative_var_error"] == pytest.approx(normal, rel=5e-3)
    assert found["expected.relative_rms_error"] == pytest.approx(math.sqrt(2 / 99))
    assert found["expected.std_error"] == pytest.approx(4 * normal / 2, rel=5e-3)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_exact_samples_show_what_is_expected_of_them(p: float) -> None:
    """Two-component mixtures as at the oracle's edges: μ4 by its closed form."""
    n, rng, shape = 40, np.random.default_rng(0), (64, 64, 3)
    a, s = 6.0, 4.0
    q = 4 * p * (1 - p) * a**2  # variance of ±a
    fourth_of_sign = 16 * p * (1 - p) * (1 - 3 * p * (1 - p)) * a**4
    v = q + s**2
    third = 8 * p * (1 - p) * (1 - 2 * p) * a**3
    fourth = fourth_of_sign + 6 * q * s**2 + 3 * s**4
    mean = (2 * p - 1) * a
    sign = np.where(rng.random((n, *shape)) < p, a, -a)
    drawn = Moments.from_samples(sign + s * rng.standard_normal((n, *shape)))
    truth = Truth(*(np.full(shape, value) for value in (mean, v, third, fourth)))
    samples = drawn.mean, drawn.variance
    metrics = truth_metrics(truth_means(truth, samples, samples, n))
    keys = ("relative_mse", "relative_var_error", "relative_rms_error", "var_error", "std_error")
    for key in keys:
        found, expected = (float(metrics[f"truth.{r}.{key}"]) for r in ("samples", "expected"))
        assert found == pytest.approx(expected, rel=0.03), key


def test_pixels_without_spread_have_no_relative_error() -> None:
    v = np.full(SHAPE, 16.0)
    v[0] = 0.0
    truth = Truth(np.zeros(SHAPE), v, 0 * v, 3 * v**2)
    variance = np.full(SHAPE, 20.0)
    nets = np.zeros(SHAPE), variance
    metrics = truth_metrics(truth_means(truth, nets, nets, 10))
    assert float(metrics["truth.nets.relative_var_error"]) == pytest.approx(0.25)
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_sentence_says_which_route_is_closer_only_where_the_images_can_tell() -> None:
    truth = {
        "nets": {"relative_mse": 0.004, "relative_rms_error": 0.2},
        "expected": {"relative_mse": 0.01, "relative_rms_error": 0.14},
    }
    noise = np.random.default_rng(0).normal(0, 1, 500)

    def said(spread: float) -> str:
        replicates = {
            f"truth.{route}.{key}": np.full(500, value)
            for route, values in truth.items()
            for key, value in values.items()
        }
        for key in truth["nets"]:
            # the jackknife multiplies the std of the replicates with √(N − 1)
            error = spread * noise / math.sqrt(499)
            replicates[f"truth.nets.{key}"] = truth["nets"][key] + error
        return truth_text(truth, replicates, 100, every_one(500, "image"))

    # the sentence is held on purpose: it is the result, in words
    assert "passes beat 100 exact samples for the mean" in said(0.001)
    assert "0.004 [0.00" in said(0.001) and "do not beat them for the variance" in said(0.001)
    # a difference of 0.006 and of 0.06, with standard errors of 0.05
    assert "passes may or may not beat 100 exact" in said(0.05)
    assert "may or may not beat them for the variance" in said(0.05)
    few = truth_text(truth, {}, 100, every_one(12, "photograph"))
    assert "passes beat 100 exact" in few and "of these 12 photographs, and takes 100 to be" in few
