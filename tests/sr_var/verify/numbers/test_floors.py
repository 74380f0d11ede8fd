"""The noise floors: the gamma law's deviations in closed form, and k2 of known laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.floors import (
    deviations_of_gamma,
    gamma_shape,
    noise_of,
)
from utils.metrics import Moments

Array = NDArray[np.float64]
SIZE = 64


def test_deviations_of_an_exponential_variable_have_their_closed_form() -> None:
    """Shape 1: E|X − 1| = 2/e, E√X = √π/2; E|√X − 1| by P(3/2, 1) and P(1, 1)."""
    of_variance, of_std, root = (float(v[0]) for v in deviations_of_gamma(np.array([1.0])))
    assert of_variance == pytest.approx(2 / math.e, rel=1e-4)
    assert root == pytest.approx(math.sqrt(math.pi) / 2, rel=1e-4)
    p_half = math.erf(1) - 2 / math.sqrt(math.pi) / math.e  # P(3/2, 1)
    expected = math.sqrt(math.pi) / 2 * (1 - 2 * p_half) - (1 - 2 * (1 - 1 / math.e))
    assert of_std == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [0.3, 1.7, 9.5, 49.5, 700.0])
def test_deviations_are_those_of_a_quadrature(shape: float) -> None:
    # in u = x^(1/8), where the density has no pole
    u = np.linspace(0, 40 ** (1 / 8), 400_001)[1:]
    x = u**8
    log_density = (shape - 1) * np.log(shape * x) - shape * x - math.lgamma(shape)
    weight = np.exp(log_density) * shape * 8 * u**7 * (u[1] - u[0])
    found = deviations_of_gamma(np.array([shape]))
    expected = [np.abs(x - 1), np.abs(np.sqrt(x) - 1), np.sqrt(x)]
    for value, integrand in zip(found, expected, strict=True):
        assert value[0] == pytest.approx((integrand * weight).sum(), rel=2e-4)


def test_deviations_of_a_large_shape_are_those_of_a_normal_error() -> None:
    shape = 1e6
    of_variance, of_std, root = deviations_of_gamma(np.array([shape]))
    expected = math.sqrt(2 / math.pi / shape)
    assert of_variance[0] == pytest.approx(expected, rel=1e-3)
    assert of_std[0] == pytest.approx(expected / 2, rel=1e-3)
    assert root[0] == pytest.approx(1, abs=1e-3)


def _standard(law: str, rng: np.random.Generator, n: int) -> Array:
    """Draws of mean 0 and variance 1, (n, SIZE, SIZE, 3)."""
    shape = (n, SIZE, SIZE, 3)
    if law == "normal":
        return rng.standard_normal(shape)
    if law == "exponential":
        return rng.exponential(1, shape) - 1
    return np.where(rng.random(shape) < 0.5, 0.8, -0.8) + 0.6 * rng.standard_normal(shape)


@pytest.mark.parametrize("n", [8, 20, 100])
@pytest.mark.parametrize(
    ("law", "kurtosis"), [("normal", 0.0), ("exponential", 6.0), ("bimodal", -2 * 0.8**4)]
)
def test_shape_is_that_of_the_law(law: str, kurtosis: float, n: int) -> None:
    """Var(k2)/σ⁴ = κ/n + 2/(n − 1), κ the excess kurtosis."""
    samples = Moments.from_samples(5 * _standard(law, np.random.default_rng(n), n))
    expected = kurtosis / n + 2 / (n - 1)
    assert np.median(1 / gamma_shape(samples)) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("n", [8, 20, 100])
@pytest.mark.parametrize(("law", "bound"), [("normal", 0.02), ("bimodal", 0.03)])
def test_exact_variance_shows_its_floor_at_any_number_of_samples(
    law: str, bound: float, n: int
) -> None:
    rng = np.random.default_rng(10 + n)
    samples = Moments.from_samples(5 * _standard(law, rng, n))
    floors = [float(floor.mean()) for floor in noise_of(samples)[:2]]
    k2 = samples.variance
    assert np.abs(k2 - 25).mean() / floors[0] == pytest.approx(1, abs=bound)
    assert np.abs(np.sqrt(k2) - 5).mean() / floors[1] == pytest.approx(1, abs=bound)


def test_heavy_tails_leave_the_floor_at_most_a_sixth_too_high() -> None:
    """The exponential's k2 is not gamma: the measured ratio is 0.86 to 0.96."""
    for n in (8, 20, 100):
        samples = Moments.from_samples(5 * _standard("exponential", np.random.default_rng(n), n))
        floors = [float(floor.mean()) for floor in noise_of(samples)[:2]]
        k2 = samples.variance
        assert 0.83 < np.abs(k2 - 25).mean() / floors[0] < 1
        assert 0.83 < np.abs(np.sqrt(k2) - 5).mean() / floors[1] < 1


def test_sides_that_eight_does_not_divide_are_pooled_too() -> None:
    samples = Moments.from_samples(np.random.default_rng(0).normal(0, 1, (5, 11, 9, 3)))
    shape = gamma_shape(samples)
    assert shape.shape == (11, 9, 3)
    assert len(np.unique(shape)) == 4  # 2 × 2 squares, the last ones narrower
    assert np.isfinite(np.stack(noise_of(samples))).all()
