"""The allowed risk by both methods, the share outside at each factor, and the smallest factor."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from sr_var.calibrate.risk import (
    FACTORS,
    allowed_risk,
    alpha_of,
    fewest_units,
    p_value,
    risk_at,
    share_outside,
    smallest_factor,
)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.32, 0.5])
@pytest.mark.parametrize("num_units", [19, 20, 100, 999])
def test_conformal_risk_is_allowed_where_its_inequality_holds_and_not_above(
    num_units: int, alpha: float
) -> None:
    allowed = allowed_risk(num_units, alpha)
    assert (num_units * allowed + 1) / (num_units + 1) == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.99, 99)])
def test_conformal_method_takes_as_many_units_as_one_in_them_may_be_outside(
    level: float, needed: int
) -> None:
    alpha = alpha_of(level)
    assert fewest_units(alpha) == needed
    assert allowed_risk(needed, alpha) == 0 and allowed_risk(needed - 1, alpha) < 0


@pytest.mark.parametrize(("risk", "needed"), [(0.0, 22), (0.02, 45), (0.05, 134)])
def test_risk_control_takes_as_many_units_as_the_risk_asks_for(risk: float, needed: int) -> None:
    assert fewest_units(0.1, 0.1, risk) == needed
    assert allowed_risk(needed, 0.1, 0.1) >= risk - 1e-9
    assert allowed_risk(needed - 1, 0.1, 0.1) < risk


def test_hoeffding_alone_takes_138_units_at_a_risk_of_a_twentieth() -> None:
    """−ln δ / h(0.05, 0.1); Bentkus's bound makes it 134."""
    divergence = 0.05 * np.log(0.5) + 0.95 * np.log(0.95 / 0.9)
    assert np.ceil(np.log(10) / divergence) == 138
    assert p_value(0.05, 138, 0.1) <= np.exp(-138 * divergence) <= 0.1


def test_p_value_is_the_smaller_of_both_bounds_and_grows_with_the_risk() -> None:
    found = p_value(0.03, 100, 0.1)
    hoeffding = (0.1 / 0.03) ** 3 * (0.9 / 0.97) ** 97
    assert found == pytest.approx(min(hoeffding, np.e * binom.cdf(3, 100, 0.1)))
    values = p_value(np.linspace(0, 0.2, 201), 50, 0.1)
    assert (np.diff(values) >= 0).all() and values[-1] == pytest.approx(1)


def test_p_value_bounds_the_chance_of_so_small_a_mean() -> None:
    """Losses of 0 and 1 with mean α: the worst case; P(p ≤ δ) ≤ δ."""
    for num_units in (22, 60, 200):
        counts = np.arange(num_units + 1)
        is_rejected = p_value(counts / num_units, num_units, 0.1) <= 0.1
        assert binom.pmf(counts, num_units, 0.1)[is_rejected].sum() <= 0.1


def test_what_no_number_of_units_allows_is_said() -> None:
    with pytest.raises(ValueError, match="too near"):
        fewest_units(0.1, 0.1, 0.0999)


def test_share_outside_counts_the_scores_above_each_factor() -> None:
    scores = np.array([[0.0, FACTORS[100], 2.5], [2.5, 7.0, 1e6]])
    found = share_outside(scores)
    expected = (scores.ravel()[None] > FACTORS[:, None]).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert share_outside(np.full(9, 0.1))[-1] == 0  # exactly


def test_smallest_factor_is_the_first_that_keeps_the_risk() -> None:
    scores = np.linspace(0.1, 10, 1000)
    risk = share_outside(scores)
    factor = smallest_factor(risk, 0.1)
    assert factor is not None and (scores > factor).mean() <= 0.1
    assert (scores > factor / 1.002).mean() > 0.1
    assert risk_at(risk, factor) <= 0.1 < risk_at(risk, factor / 1.002)
    assert risk_at(risk, 1e-3) == 1
    assert smallest_factor(share_outside(np.full(10, 1e4)), 0.5) is None
