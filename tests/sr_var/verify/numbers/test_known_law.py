"""References of a law that is known: its two components, closed forms, draws of it."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from oracle.law import OracleLaw, oracle_law
from sr_var.results.moments import Truth
from sr_var.verify.numbers.calibration import COVERAGES, Histograms, calibrate, ence
from sr_var.verify.numbers.known_law import Mixture, expected_of_image
from tests.tiny import photo

Array = NDArray[np.float64]
SHAPE = (64, 64, 3)


def _law(side: int = 16) -> OracleLaw:
    low_res = torch.from_numpy(photo(3, (side, side)).transpose(2, 0, 1).copy()).double()
    return oracle_law(0.5 * (low_res[None] / 127.5 - 1), 4)


def _truth(law: OracleLaw) -> Truth:
    """Of images in [-1, 1]; the unit does not matter here."""
    names = ("mean", "variance", "third_central_moment", "fourth_central_moment")
    return Truth(
        *(
            np.moveaxis(getattr(law, name)[0].numpy(), 0, -1) * 127.5**k
            for k, name in zip((1, 2, 3, 4), names, strict=True)
        )
    )


def _two_point(p: float, distance: float, noise: float) -> Truth:
    """p at one end, 1 − p at the other, normal noise upon it."""
    w, one = p * (1 - p), np.ones(SHAPE)
    v = w * distance**2 + noise**2
    third = w * (1 - 2 * p) * distance**3
    fourth = w * (1 - 6 * w) * distance**4 + 3 * v**2
    return Truth(100 * one, v * one, third * one, fourth * one)


def test_components_of_the_oracle_follow_from_its_moments() -> None:
    law = _law()
    found = Mixture.of(_truth(law))
    noise = law.noise_variance.sqrt().expand_as(law.base)[0].numpy() * 127.5
    np.testing.assert_allclose(found.noise_std, np.moveaxis(noise, 0, -1), rtol=1e-3)
    edge = np.moveaxis(law.edge.expand_as(law.base)[0].numpy(), 0, -1) * 127.5
    is_clear = np.abs(edge) > 0.2 * found.noise_std
    assert is_clear.mean() > 0.2
    distance = found.upper - found.lower
    np.testing.assert_allclose(distance[is_clear], 2 * np.abs(edge)[is_clear], rtol=1e-4)
    value = law.mean + 0.03
    cdf = np.moveaxis(law.cdf(value)[0].numpy(), 0, -1)
    at = 0.03 * 127.5
    normal = torch.special.ndtr
    upper, lower = (
        normal(torch.from_numpy((at - c) / found.noise_std)).numpy()
        for c in (found.upper, found.lower)
    )
    np.testing.assert_allclose(found.share * upper + (1 - found.share) * lower, cdf, atol=1e-5)


@pytest.mark.parametrize(("p", "distance"), [(0.5, 20.0), (0.2, 20.0), (0.8, 8.0), (0.5, 0.0)])
def test_closed_forms_are_what_draws_of_the_law_show(p: float, distance: float) -> None:
    """12 288 draws; four standard errors of a share are 0.018."""
    truth = _two_point(p, distance, 4.0)
    law = Mixture.of(truth)
    expected = law.expected_of_normal(truth.variance)
    y = law.sample(np.random.default_rng(0))
    found, _ = calibrate(y, np.zeros(SHAPE), truth.variance)
    assert expected["z2"] == pytest.approx(1, abs=1e-6)
    assert found["z2"] == pytest.approx(1, abs=0.06)
    for name in ("nll", "crps", "interval_score_90"):
        assert found[name] == pytest.approx(expected[name], rel=0.03), name
    for q in COVERAGES:
        name = f"coverage_{q}"
        assert found[name] == pytest.approx(expected[name], abs=0.018), name


def test_an_exact_bimodal_law_covers_what_it_is_known_to() -> None:
    """±10 with noise of 4: v = 116; |y| ≤ q with q = 0.9945 √116 (68 %) and 1.96 √116 (95 %)."""
    law = Mixture.of(_two_point(0.5, 20.0, 4.0))
    found = law.expected_of_normal(np.full(SHAPE, 116.0))

    def share(bound: float) -> float:
        return NormalDist(10, 4).cdf(bound) - NormalDist(10, 4).cdf(-bound)

    assert found["coverage_68"] == pytest.approx(share(0.99446 * math.sqrt(116)), abs=1e-4)
    assert found["coverage_95"] == pytest.approx(share(1.95996 * math.sqrt(116)), abs=1e-4)
    assert found["coverage_68"] == pytest.approx(0.571, abs=1e-3)
    assert found["coverage_95"] == pytest.approx(0.997, abs=1e-3)


def test_samples_of_the_oracle_show_what_is_expected_of_them() -> None:
    """n = 20 draws of the whole law, all pixels of 24 images; spatial correlation is in them."""
    law, n = _law(), 20
    truth = _truth(law)
    generator = torch.Generator().manual_seed(0)
    rows, sums = [], Histograms()
    for _ in range(24):
        drawn = np.stack(
            [np.moveaxis(law.sample(generator)[0].numpy(), 0, -1) for _ in range(n + 1)]
        )
        y, samples = 127.5 * drawn[0], 127.5 * drawn[1:]
        variance = samples.var(axis=0, ddof=1) * (1 + 1 / n)
        means, of_image = calibrate(y, samples.mean(axis=0), variance)
        rows.append(means)
        sums.add(of_image)
    expected, _ = expected_of_image("a.png", truth, n, 0)["samples"].metrics()
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    assert found["z2"] == pytest.approx(expected["z2"], abs=0.05)
    assert found["nll"] == pytest.approx(expected["nll"], abs=0.03)
    for name in ("crps", "interval_score_90"):
        assert found[name] == pytest.approx(expected[name], rel=0.03)
    for q in COVERAGES:
        assert found[f"coverage_{q}"] == pytest.approx(expected[f"coverage_{q}"], abs=0.015)
    assert ence(sums) == pytest.approx(expected["ence"], abs=0.03)


def test_the_same_image_and_seed_give_the_same_reference() -> None:
    truth = _two_point(0.3, 10.0, 5.0)
    one, two = (expected_of_image("a.png", truth, 8, 0) for _ in range(2))
    other = expected_of_image("b.png", truth, 8, 0)
    assert one["samples"].metrics()[0] == two["samples"].metrics()[0]
    assert one["samples"].metrics()[0] != other["samples"].metrics()[0]
    one["samples"].add(other["samples"])
    assert one["samples"].sums.count.sum() == pytest.approx(2 * truth.mean.size)
    assert len(one["samples"].means["z2"]) == 2
