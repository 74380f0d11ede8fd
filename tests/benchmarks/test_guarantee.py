"""The promise over 1000 calibrations on laws whose true risk is known, and where it fails."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.guarantee import ALPHA, DELTA, LAWS, Law, repeat
from sr_var.calibrate.risk import FACTORS, share_outside

NUM = 1000
by_name = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


@by_name
def test_true_risk_is_that_of_many_units(law: Law) -> None:
    scores = law.scores(np.random.default_rng(0), 20_000)
    factors = FACTORS[[2000, 5000, 6000]]
    found = share_outside(scores)[[2000, 5000, 6000]]
    np.testing.assert_allclose(found, law.risk(factors), atol=0.005)


@by_name
def test_conformal_intervals_hold_on_average(law: Law) -> None:
    found = repeat(law, 20, None, num_repetitions=NUM)
    assert found.mean <= ALPHA + 3 * found.standard_error
    assert found.mean >= ALPHA - 2 / 21 - 3 * found.standard_error  # theorem 2: not far below


@by_name
def test_risk_control_fails_in_a_tenth_of_the_calibrations_at_most(law: Law) -> None:
    found = repeat(law, 40, DELTA, num_repetitions=NUM)
    assert found.share_above <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / NUM)


def test_without_the_correction_for_n_the_promise_would_be_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the tests above can fail."""
    monkeypatch.setattr("benchmarks.guarantee.allowed_risk", lambda *of: ALPHA)
    found = repeat(LAWS[3], 20, None, num_repetitions=NUM)
    assert found.mean > ALPHA + 3 * found.standard_error
    assert repeat(LAWS[1], 40, DELTA, num_repetitions=NUM).share_above > 0.3


@pytest.mark.parametrize("delta", [None, DELTA])
def test_a_shift_breaks_the_promise(delta: float | None) -> None:
    found = repeat(LAWS[1], 138, delta, num_repetitions=200, shift=1.5)
    assert found.mean > ALPHA + 0.02 and found.share_above > 0.9


def test_tiles_that_are_counted_as_units_break_the_promise() -> None:
    found = repeat(LAWS[3], 12, DELTA, num_repetitions=NUM, num_tiles=12)
    assert found.share_above > DELTA + 0.03
