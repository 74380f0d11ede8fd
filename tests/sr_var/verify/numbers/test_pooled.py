"""Floors, ceiling and consistency on laws whose values are known, and ratios over images."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.metrics import (
    correlation,
    image_means,
    pooled_metrics,
    signed_root,
)
from sr_var.verify.read.images import ImageData
from utils.metrics import Moments

Array = NDArray[np.float64]
SIZE = 64
SHAPE = (SIZE, SIZE, 3)


def _known_law(n: int, seed: int = 0) -> tuple[ImageData, Array]:
    """Normal samples whose σ is even in its logarithm, and nets that know the law; and the σ."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(50, 200, SHAPE), np.exp(rng.uniform(1, 2, SHAPE))
    samples = mean + std * rng.standard_normal((n, *SHAPE))
    data = ImageData(
        mean=mean,
        variance=std**2,
        samples=Moments.from_samples(samples),
        high_res=mean + std * rng.standard_normal(SHAPE),
        bilinear=mean,
    )
    return data, std


def _metrics(data: ImageData) -> dict[str, float]:
    return {name: float(value) for name, value in pooled_metrics(image_means(data)[0]).items()}


@pytest.mark.parametrize("n", [4, 20, 100])
def test_exact_variance_has_no_squared_error_above_its_floor(n: int) -> None:
    """E[(k2 − σ²)² − V̂] = 0, within 4 standard errors."""
    data, std = _known_law(n)
    metrics = _metrics(data)
    k2 = data.samples.variance
    per_value = (k2 - std**2) ** 2 - data.samples.variance_of_variance
    standard_error = per_value.std() / math.sqrt(per_value.size)
    assert metrics["var.corrected_squared_error"] == pytest.approx(per_value.mean(), rel=1e-9)
    assert abs(metrics["var.corrected_squared_error"]) < 4 * standard_error
    assert metrics["var.squared_error"] > 20 * standard_error


@pytest.mark.parametrize("n", [20, 100])
def test_relative_floor_of_normal_samples_is_two_over_n_minus_one(n: int) -> None:
    metrics = _metrics(_known_law(n)[0])
    assert metrics["var.relative_floor_squared_error"] == pytest.approx(2 / (n - 1), rel=0.05)
    assert metrics["mean.relative_floor"] == pytest.approx(1 / n, rel=1e-12)


def test_errors_of_the_nets_are_recovered_from_a_noisy_reference() -> None:
    """m off by 0.3 σ, v by 20 %: relative squared errors 0.09 and 0.04, rms 0.2, bias 0.2."""
    data, std = _known_law(20)
    wrong = dataclasses.replace(data, mean=data.mean + 0.3 * std, variance=1.2 * std**2)
    metrics = _metrics(wrong)
    assert metrics["mean.relative_mse"] == pytest.approx(0.09, abs=0.005)
    assert metrics["mean.relative_rms_error"] == pytest.approx(0.3, abs=0.01)
    assert metrics["mean.relative_raw_mse"] == pytest.approx(0.14, abs=0.006)
    assert metrics["var.relative_squared_error"] == pytest.approx(0.04, abs=0.008)
    assert metrics["var.relative_rms_error"] == pytest.approx(0.2, abs=0.02)
    assert metrics["var.relative_bias"] == pytest.approx(0.2, abs=0.01)
    raw = metrics["var.relative_raw_squared_error"]
    assert raw == pytest.approx(0.04 + 2 / 19, abs=0.015)


def test_ceiling_of_an_exact_variance_net_is_the_root_of_the_reliability() -> None:
    """ρ = Var(σ²)/(Var(σ²) + E 2σ⁴/(n − 1)); corr(σ², k2) = √ρ, so 1 disattenuated."""
    n = 20
    data, std = _known_law(n, seed=1)
    metrics = _metrics(data)
    signal, noise = (std**2).var(), np.mean(2 * std**4 / (n - 1))
    rho = signal / (signal + noise)
    assert metrics["ceiling.reliability"] == pytest.approx(rho, abs=0.02)
    assert metrics["ceiling.correlation"] == pytest.approx(math.sqrt(rho), abs=0.01)
    assert metrics["ceiling.disattenuated"] == pytest.approx(1, abs=0.015)
    # √k₂ is σ times one noise, so that it correlates with σ as k₂ does with σ²
    assert metrics["ceiling.std_disattenuated"] == pytest.approx(1, abs=0.015)
    spread = np.sqrt(data.samples.variance).var()
    noise = np.mean(data.samples.variance - std**2 * _mean_root(n) ** 2)
    assert metrics["ceiling.std_reliability"] == pytest.approx(1 - noise / spread, abs=0.01)


def _mean_root(n: int) -> float:
    """E√k₂/σ of n normal samples: that of a χ variable of n − 1 degrees (c₄)."""
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


@pytest.mark.parametrize("n", [4, 8, 20])
@pytest.mark.parametrize("is_bimodal", [False, True])
def test_exact_nets_correlate_fully_once_the_noise_is_out(n: int, is_bimodal: bool) -> None:
    """Within 3 % at n = 4 of three images of 64², 1.5 % from 8 on: four standard errors.

    The correlation of two halves of the samples, raised by Spearman and Brown's formula, gave 1.11
    to 1.15 at n = 4: halves of two samples each are no parallel test of four.
    """
    rows = [image_means(_law_with_edges(n, seed, is_bimodal))[0] for seed in range(3)]
    means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    found = {name: float(value) for name, value in pooled_metrics(means).items()}
    bound = 0.03 if n == 4 else 0.015
    assert found["ceiling.disattenuated"] == pytest.approx(1, abs=bound)
    assert found["ceiling.std_disattenuated"] == pytest.approx(1, abs=bound)


def _law_with_edges(n: int, seed: int, is_bimodal: bool) -> ImageData:
    """A std that is even in its logarithm; half of the pixels may have two peaks, as the oracle."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(50, 200, SHAPE), np.exp(rng.uniform(1, 3, SHAPE))
    z = rng.standard_normal((n, *SHAPE))
    if is_bimodal:
        z[:, ::2] = np.where(rng.random(z[:, ::2].shape) < 0.5, 0.8, -0.8) + 0.6 * z[:, ::2]
    return ImageData(mean, std**2, Moments.from_samples(mean + std * z), mean, mean)


def test_ceiling_and_floors_without_four_samples_are_unknown() -> None:
    data, _ = _known_law(4)
    three = Moments.from_samples(np.stack([data.mean, data.mean + 1, data.mean + 5]))
    metrics = _metrics(dataclasses.replace(data, samples=three))
    assert math.isnan(metrics["ceiling.reliability"]) and math.isfinite(
        metrics["var.relative_bias"]
    )
    assert math.isnan(metrics["ceiling.disattenuated"])
    assert math.isnan(metrics["var.floor_squared_error"])
    assert math.isnan(metrics["consistency.nets.mean_rms"])  # no low-res image


def test_samples_predict_one_more_draw_with_the_spread_of_their_mean() -> None:
    """z² = (y − x̄)²/(k2 (1 + 1/n)) is a squared t: E = (n − 1)/(n − 3). That of exact nets is 1."""
    n = 10
    metrics = _metrics(_known_law(n, seed=2)[0])
    assert metrics["calibration.nets.z2"] == pytest.approx(1, abs=0.05)
    assert metrics["calibration.samples.z2"] == pytest.approx((n - 1) / (n - 3), abs=0.08)


def test_consistency_is_the_rms_of_the_block_means_residual() -> None:
    """Blocks of 4 × 4: the mean net is off by 3 in one block of four channels' worth."""
    low_res = np.arange(12.0).reshape(2, 2, 3)
    mean = low_res.repeat(4, axis=0).repeat(4, axis=1)
    zigzag = np.where(np.arange(8) % 2, 5.0, -5.0)[:, None, None]  # no block mean changes
    samples = Moments.from_samples(np.stack([mean + 1, mean + 3]))
    net = mean + zigzag
    net[:4, :4] += 3.0
    data = ImageData(net, np.ones_like(mean), samples, mean, mean, low_res=low_res)
    data = dataclasses.replace(data, block_variance=np.full((2, 2, 3), 9.0))
    metrics = _metrics(data)
    assert metrics["consistency.nets.mean_rms"] == pytest.approx(math.sqrt(9 / 4))
    assert metrics["consistency.samples.mean_rms"] == pytest.approx(2.0)
    assert metrics["consistency.samples.block_mean_std"] == pytest.approx(3.0)


def test_correlation_of_means_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, 1000)
    y = 0.4 * x + rng.normal(0, 1, 1000)
    found = correlation(*(v.mean() for v in (x, y, x * x, y * y, x * y)))
    assert found == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)


def test_negative_square_keeps_its_sign_in_the_root() -> None:
    np.testing.assert_allclose(signed_root(np.array([-4.0, 0.0, 9.0])), [-2, 0, 3])


def test_metrics_of_replicates_are_those_of_each() -> None:
    rows = [image_means(_known_law(8, seed)[0])[0] for seed in range(3)]
    stacked = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    together = pooled_metrics(stacked)
    for i, row in enumerate(rows):
        for name, value in pooled_metrics(row).items():
            assert together[name][i] == pytest.approx(float(value), nan_ok=True), name


def test_images_without_spread_give_no_warning_and_nothing_infinite() -> None:
    flat = np.full((8, 8, 3), 7.0)
    samples = Moments.from_samples(np.stack([flat] * 5))
    data = ImageData(flat, 0 * flat, samples, flat, flat, low_res=np.full((2, 2, 3), 7.0))
    metrics = _metrics(data)
    assert not any(math.isinf(value) for value in metrics.values())
    assert metrics["calibration.nets.z2"] == 0.0
