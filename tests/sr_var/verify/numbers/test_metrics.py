"""The metrics of one image against closed forms, and the noise floors against known laws."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.floors import std_of_samples
from sr_var.verify.numbers.metrics import (
    averages,
    compare_mean,
    compare_variance,
    compare_with_truth,
    edge_contrast,
    image_metrics,
    known,
)
from sr_var.verify.read.images import ImageData
from utils.metrics import Moments

Array = NDArray[np.float64]
SHAPE = (6, 6, 3)


def _full(value: float) -> Array:
    return np.full(SHAPE, value)


def _data(samples: list[float], mean: float, variance: float, **changes: Any) -> ImageData:
    """Flat images: every metric follows from a few numbers."""
    moments = Moments.from_samples(np.stack([_full(value) for value in samples]))
    data = ImageData(_full(mean), _full(variance), moments, _full(100.0), _full(90.0))
    return dataclasses.replace(data, **changes)


def test_metrics_of_the_mean_have_their_closed_forms() -> None:
    """Samples 10, 20, 30: mean 20, unbiased variance 100, floor 100/3."""
    metrics = compare_mean(_data([10, 20, 30], mean=23.0, variance=64.0))
    assert metrics == pytest.approx(
        {
            "mse": 9.0,
            "psnr": 10 * math.log10(255**2 / 9),
            "nmse": 9 / 400,
            "floor_mse": 100 / 3,
            "corrected_mse": 9 - 100 / 3,
            "relative_mse": (9 - 100 / 3) / 100,
        }
    )


def test_squared_error_does_not_wrap_around_and_psnr_has_a_fixed_range() -> None:
    """On bytes (10 - 30)² would be 144, and a dark image would lend its maximum as range."""
    metrics = compare_mean(_data([29, 31], mean=10.0, variance=0.0))
    assert metrics["mse"] == pytest.approx(400.0)
    assert metrics["psnr"] == pytest.approx(10 * math.log10(255**2 / 400))


def test_metrics_of_the_variance_have_their_closed_forms() -> None:
    """Samples 10, 20, 30, 40: unbiased variance 500/3, k4 = -6 · (500/3)²/5 for n = 4."""
    data = _data([10, 20, 30, 40], mean=25.0, variance=64.0)
    metrics = compare_variance(data)
    k2, m4 = 500 / 3, 2 * 15**4 + 2 * 5**4
    k4 = (4 * 5 * m4 - 3 * 3 * 500.0**2) / (3 * 2 * 1)
    scatter = (2 * 4 * k2**2 + 3 * k4) / (4 * 5)
    a = (k2**2 - scatter) / scatter
    of_variance = 2 * math.exp((a - 1) * math.log(a) - a - math.lgamma(a))
    # quadrature of the gamma law of k2/σ², and of its root
    x = np.linspace(0, 20, 2_000_001)[1:]
    density = np.exp((a - 1) * np.log(a * x) - a * x - math.lgamma(a)) * a * (x[1] - x[0])
    of_std = (np.abs(np.sqrt(x) - 1) * density).sum() / (np.sqrt(x) * density).sum()
    assert metrics == pytest.approx(
        {
            "var_error": k2 - 64,
            "std_error": math.sqrt(k2) - 8,
            "floor_var_error": k2 * of_variance,
            "floor_std_error": math.sqrt(k2) * of_std,
            "mean_std_net": 8.0,
            "mean_std_samples": math.sqrt(k2) / (np.sqrt(x) * density).sum(),
            "correlation": math.nan,  # neither map has a spread
            "num_negative": 0.0,
            "num_values": SHAPE[0] * SHAPE[1] * 3,
        },
        rel=1e-4,
        nan_ok=True,
    )


def test_negative_variances_count_as_zero_and_are_counted() -> None:
    variance = _full(100.0)
    variance[0, 0] = -50.0
    data = _data([10, 20, 30], mean=20.0, variance=0.0)
    metrics = compare_variance(dataclasses.replace(data, variance=variance))
    share = 3 / variance.size
    assert metrics["num_negative"] == 3 and metrics["num_values"] == variance.size
    assert metrics["var_error"] == pytest.approx(100 * share)
    assert metrics["std_error"] == pytest.approx(10 * share)
    assert metrics["mean_std_net"] == pytest.approx(10 * (1 - share))
    assert variance[0, 0, 0] == -50.0  # the argument is not written into


def test_variance_of_the_samples_is_unbiased() -> None:
    """n − 1: for samples 0 and 2 it is 2, not 1."""
    metrics = compare_variance(_data([0, 2], mean=1.0, variance=2.0))
    assert metrics["var_error"] == pytest.approx(0.0)
    # E√k₂ of two normal samples is √(2/π) σ; c(a) is read off a table
    assert metrics["mean_std_samples"] == pytest.approx(math.sqrt(math.pi), rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_std_of_the_samples_is_unbiased_at_few_of_them(n: int) -> None:
    """√k₂ of normal samples is low by c(n) = 0.798, 0.886, 0.987 on average."""
    data, std = _from_known_law(n, seed=6, size=96)
    found, raw = std_of_samples(data.samples), np.sqrt(data.samples.variance)
    c = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    assert raw.mean() / std.mean() == pytest.approx(c, abs=0.01)
    # 27648 values of √k₂ with a relative std of at most 0.76 each
    assert found.mean() / std.mean() == pytest.approx(1.0, abs=3 * 0.76 / math.sqrt(27648) + 0.001)
    assert compare_variance(data)["mean_std_samples"] == pytest.approx(found.mean())


def test_floors_of_the_variance_need_four_samples() -> None:
    three, four = (compare_variance(_data([1.0, 2, 4, 8][:n], 1.0, 1.0)) for n in (3, 4))
    assert math.isnan(three["floor_var_error"]) and math.isnan(three["floor_std_error"])
    assert math.isfinite(four["floor_var_error"])


def test_samples_without_spread_give_finite_metrics() -> None:
    metrics = compare_variance(_data([7.0] * 5, mean=7.0, variance=0.0))
    assert math.isnan(metrics.pop("correlation"))
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["var_error"] == metrics["floor_std_error"] == 0.0
    assert compare_mean(_data([7.0] * 5, mean=7.0, variance=0.0))["psnr"] == math.inf


def test_correlation_is_that_of_the_two_std_maps() -> None:
    rng = np.random.default_rng(0)
    std = rng.uniform(1, 5, SHAPE)
    # two samples mean ± std/√2 have exactly this unbiased std
    samples = np.stack([100 - std / math.sqrt(2), 100 + std / math.sqrt(2)])
    net_std = 2 * std + rng.normal(0, 1, SHAPE).clip(-1, 1)
    data = dataclasses.replace(
        _data([0.0, 1.0], 100.0, 1.0), samples=Moments.from_samples(samples), variance=net_std**2
    )
    expected = np.corrcoef(std.ravel(), net_std.ravel())[0, 1]
    assert compare_variance(data)["correlation"] == pytest.approx(expected)


def test_comparison_with_the_real_image_covers_net_samples_and_baseline() -> None:
    metrics = compare_with_truth(_data([104, 108], mean=103.0, variance=1.0))
    assert metrics == pytest.approx(
        {
            "psnr_net": 10 * math.log10(255**2 / 9),
            "psnr_samples": 10 * math.log10(255**2 / 36),
            "psnr_bilinear": 10 * math.log10(255**2 / 100),
            "mean_abs_error_net": 3.0,
            # the window of SSIM does not fit into 6×6 pixels
            "ssim_net": math.nan,
            "ssim_samples": math.nan,
            "ssim_bilinear": math.nan,
        },
        nan_ok=True,
    )


def test_ssim_of_flat_images_has_its_closed_form() -> None:
    """No variance and no covariance: (2ab + C₁) / (a² + b² + C₁), C₁ = 2.55²."""
    full = [np.full((12, 12, 3), value) for value in (103.0, 100.0, 90.0)]
    data = ImageData(full[0], full[0], None, full[1], full[2])
    metrics = compare_with_truth(data)
    for name, other in (("ssim_net", 103.0), ("ssim_bilinear", 90.0)):
        c1 = 2.55**2
        expected = (2 * 100 * other + c1) / (100**2 + other**2 + c1)
        assert metrics[name] == pytest.approx(expected, rel=1e-9)
    assert "ssim_samples" not in metrics


def test_std_at_edges_is_told_from_std_on_flat_ground() -> None:
    high_res = np.zeros((20, 20, 3))
    high_res[:, 10:] = 200.0  # the gradient is not zero in columns 9 and 10: a tenth of the image
    variance = np.full((20, 20, 3), 4.0)
    variance[:, 9:11] = 81.0
    moments = Moments.from_samples(np.stack([high_res, high_res]))
    metrics = edge_contrast(ImageData(high_res, variance, moments, high_res, high_res))
    assert metrics["std_at_edges"] == pytest.approx(9.0)
    assert metrics["std_on_flat"] == pytest.approx(2.0, abs=7 * 0.11)  # flat includes the ties
    assert metrics["std_on_flat"] < metrics["std_at_edges"]


def test_averages_are_over_images_and_counts_are_summed() -> None:
    rows = [image_metrics(_data([10, 20, 30, 40], mean, -1.0)) for mean in (25.0, 27.0, 31.0)]
    summary = averages(rows)
    assert summary["mean.mse"] == pytest.approx((0 + 4 + 36) / 3)
    assert summary["var.num_negative"] == 3 * 6 * 6 * 3
    assert {name.partition(".")[0] for name in summary} == {"mean", "var", "high_res", "edges"}


def test_an_image_without_a_finite_value_is_left_out_of_its_average() -> None:
    def row(psnr_net: float, psnr_bilinear: float, correlation: float) -> dict[str, float]:
        values = (psnr_net, psnr_bilinear, correlation)
        names = ("high_res.psnr_net", "high_res.psnr_bilinear", "var.correlation")
        return dict(zip(names, values, strict=True))

    rows = [row(30.0, math.inf, math.nan), row(32.0, 28.0, 0.8), row(34.0, 30.0, 0.6)]
    found = averages(rows)
    # the white image is left out of both, so that they are of the same images
    assert found == pytest.approx(row(33.0, 29.0, 0.7))
    assert {name: int((~seen).sum()) for name, seen in known(rows).items()} == dict.fromkeys(
        found, 1
    )
    # where no image has a finite value the average is as they are
    assert averages([row(math.inf, math.inf, math.nan)] * 2)["high_res.psnr_net"] == math.inf


def _from_known_law(n: int, seed: int, size: int = 48) -> tuple[ImageData, Array]:
    """Float samples of independent normals, and nets that know mean and variance exactly."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(50, 200, (size, size, 3)), rng.uniform(2, 12, (size, size, 3))
    samples = mean + std * rng.standard_normal((n, size, size, 3))
    return ImageData(mean, std**2, Moments.from_samples(samples), mean, mean), std


@pytest.mark.parametrize(("n", "seed"), [(4, 0), (20, 1), (100, 2)])
def test_exact_mean_has_no_error_above_the_noise_floor(n: int, seed: int) -> None:
    """E[(x̄ − μ)² − k2/n] = 0, within 3 standard errors over pixels and channels."""
    data, _ = _from_known_law(n, seed)
    metrics = compare_mean(data)
    per_value = (data.samples.mean - data.mean) ** 2 - data.samples.variance / n
    standard_error = per_value.std() / math.sqrt(per_value.size)
    assert metrics["corrected_mse"] == pytest.approx(per_value.mean(), rel=1e-9)
    assert abs(metrics["corrected_mse"]) < 3 * standard_error
    assert metrics["mse"] > 10 * standard_error  # the raw error is far from zero


def test_wrong_mean_shows_its_own_squared_error_above_the_floor() -> None:
    data, _ = _from_known_law(20, seed=3)
    metrics = compare_mean(dataclasses.replace(data, mean=data.mean + 4.0))
    per_value = (data.samples.mean - data.mean - 4) ** 2 - data.samples.variance / 20
    standard_error = per_value.std() / math.sqrt(per_value.size)
    assert abs(metrics["corrected_mse"] - 16.0) < 3 * standard_error
    expected = 16.0 / float(np.mean(data.variance))
    assert metrics["relative_mse"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("n", "bound"), [(4, 0.08), (8, 0.03), (20, 0.02), (100, 0.02)])
def test_exact_variance_shows_the_error_of_its_floor(n: int, bound: float) -> None:
    """For normal samples the law of k2 behind the floor is exact; only its shape is estimated."""
    metrics = compare_variance(_from_known_law(n, seed=4)[0])
    for name in ("var_error", "std_error"):
        assert metrics[name] / metrics[f"floor_{name}"] == pytest.approx(1.0, abs=bound)


def test_exact_std_error_at_100_samples_is_what_the_theory_says() -> None:
    """A perfect net still shows E|s − σ|/σ ≈ √(2/π) / √(2·99) = 5.7 %."""
    data, std = _from_known_law(100, seed=5)
    metrics = compare_variance(data)
    expected = math.sqrt(2 / math.pi) / math.sqrt(2 * 99)
    assert expected == pytest.approx(0.057, abs=5e-4)
    assert metrics["std_error"] / std.mean() == pytest.approx(expected, rel=0.02)
