"""Exact samples as a unit, and scores of nets less those of samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sr_var.results.moments import Truth
from sr_var.verify.numbers.calibration import calibrate
from sr_var.verify.numbers.equivalent import (
    PAIRED,
    equivalent_samples,
    equivalent_text,
    handicap,
    paired_differences,
)
from sr_var.verify.numbers.floors import truth_means
from utils.metrics import Moments

SHAPE = (96, 96, 3)


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("height", [0.0, 9.0])
def test_n_exact_samples_are_worth_n(n: int, height: float) -> None:
    """Normal and bimodal; 27 648 pixels tell ⟨(x̄ − μ)²⟩ to 0.9 %, ⟨(k₂ − v)²⟩ to 2 % at n = 5."""
    rng, noise = np.random.default_rng(n), 4.0
    sign = rng.choice([-height, height], (n, *SHAPE))
    drawn = Moments.from_samples(50 + sign + noise * rng.standard_normal((n, *SHAPE)))
    v = height**2 + noise**2
    fourth = height**4 + 6 * height**2 * noise**2 + 3 * noise**4
    truth = Truth(*(np.full(SHAPE, value) for value in (50.0, v, 0.0, fourth)))
    route = drawn.mean, drawn.variance
    means = truth_means(truth, route, route, n)
    found = equivalent_samples({name: np.float64(value) for name, value in means.items()})
    assert found["truth.samples.equivalent_samples_mean"] == pytest.approx(n, rel=0.04)
    assert found["truth.samples.equivalent_samples_variance"] == pytest.approx(n, rel=0.08)
    for part in ("mean", "variance"):
        assert found[f"truth.expected.equivalent_samples_{part}"] == pytest.approx(n, rel=1e-6)


def test_nets_without_an_error_are_worth_any_number() -> None:
    ones = np.ones((4, 4, 3))
    truth = Truth(ones, 4 * ones, 0 * ones, 48 * ones)
    exact = truth.mean, truth.variance
    means = truth_means(truth, exact, (truth.mean + 1, truth.variance + 2), 10)
    found = equivalent_samples({name: np.float64(value) for name, value in means.items()})
    assert math.isinf(found["truth.nets.equivalent_samples_mean"])
    assert math.isinf(found["truth.nets.equivalent_samples_variance"])
    assert found["truth.samples.equivalent_samples_mean"] == pytest.approx(4)
    # of a normal law Var(k₂) = 2v²/(n − 1) = 4
    assert found["truth.samples.equivalent_samples_variance"] == pytest.approx(9)


def test_sentence_has_numbers_and_their_intervals() -> None:
    truth = {"equivalent_samples_mean": 1267.4, "equivalent_samples_variance": 158.0}
    intervals = {"truth.nets.equivalent_samples_mean": [1001.0, 1500.0]}
    said = equivalent_text(truth, intervals, 100)
    assert "1267 [1001, 1500] exact samples" in said and "variance 158 (" in said


@pytest.mark.parametrize("n", [6, 20])
def test_exact_nets_and_exact_samples_differ_by_the_handicap_alone(n: int) -> None:
    """Of a normal law; 300 000 pixels tell the difference of two scores to 1 % of the std."""
    rng, num = np.random.default_rng(n), 300_000
    std = np.exp(rng.normal(2, 0.4, num))
    y = std * rng.standard_normal(num)
    mean = std * rng.standard_normal(num) / math.sqrt(n)
    k2 = std**2 * rng.chisquare(n - 1, num) / (n - 1)
    means = {"samples.count": np.float64(n)}
    for route, law in (("nets", (0 * y, std**2)), ("samples", (mean, k2 * (1 + 1 / n)))):
        of_route, _ = calibrate(y, *law)
        means |= {f"{route}.{name}": np.float64(value) for name, value in of_route.items()}
    found = paired_differences(means)
    for name in PAIRED:
        scale = 1.0 if name == "nll" else float(std.mean())
        assert found[f"paired.{name}"] < 0
        assert found[f"paired.fair_{name}"] / scale == pytest.approx(0, abs=0.012), name
    assert found["paired.nll"] == pytest.approx(-handicap(n)["nll"], abs=0.012)


def test_twenty_samples_lose_what_the_docs_say() -> None:
    assert handicap(20)["nll"] == pytest.approx(0.0564, abs=1e-4)
    assert handicap(10_000)["crps"] == pytest.approx(0, abs=1e-4)
