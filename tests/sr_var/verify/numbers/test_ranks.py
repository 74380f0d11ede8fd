"""PIT, ranks and fair CRPS: uniform for exact laws, and the published formula."""

from __future__ import annotations

import numpy as np
import pytest

from sr_var.verify.numbers.calibration import crps_of_normal
from sr_var.verify.numbers.ranks import NUM_PIT_BINS, expected_pit, fair_crps, pit_bins, ranks

NUM = 200_000


@pytest.mark.parametrize("num_samples", [None, 5, 20])
def test_pit_of_an_exact_law_is_what_is_expected(num_samples: int | None) -> None:
    """Four standard errors of a share of 5 % among 200 000 are 0.002."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(NUM)
    if num_samples is not None:
        z = rng.standard_t(num_samples - 1, NUM)
    share = np.bincount(pit_bins(z), minlength=NUM_PIT_BINS) / NUM
    expected = expected_pit(num_samples)
    assert expected.sum() == pytest.approx(1) and len(expected) == NUM_PIT_BINS
    np.testing.assert_allclose(share, expected, atol=0.0022)


def test_too_much_std_is_a_hump_and_too_little_a_bowl() -> None:
    z = np.random.default_rng(1).standard_normal(NUM)
    for factor, is_hump in ((0.5, True), (2.0, False)):
        share = np.bincount(pit_bins(factor * z), minlength=NUM_PIT_BINS) / NUM
        assert (share[10] > 0.06 > share[0]) == is_hump


def test_values_beyond_all_floats_fall_into_the_last_bins() -> None:
    assert pit_bins(np.array([-1e9, 1e9])).tolist() == [0, NUM_PIT_BINS - 1]


@pytest.mark.parametrize("spread", [0.7, 30.0])
def test_ranks_of_an_exact_bimodal_sampler_are_uniform(spread: float) -> None:
    """Whole grey levels, so there are ties; four standard errors of a share of 1/8 are 0.003."""
    rng = np.random.default_rng(2)
    sign = rng.choice([-1.0, 1.0], (8, NUM))
    drawn = 120 + spread * (sign + 0.3 * rng.standard_normal((8, NUM)))
    values = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    found = ranks(values[1:], values[0], rng)
    share = np.bincount(found, minlength=8) / NUM
    np.testing.assert_allclose(share, 1 / 8, atol=0.003)


def test_rank_counts_what_is_below() -> None:
    members = np.array([[10], [20], [30]], np.uint8)
    rng = np.random.default_rng(0)
    for y, rank in ((5, 0), (15, 1), (25, 2), (35, 3)):
        assert ranks(members, np.array([y], np.uint8), rng).tolist() == [rank]
    ties = {int(ranks(members, np.array([20], np.uint8), rng)[0]) for _ in range(40)}
    assert ties == {1, 2}


def test_fair_crps_is_its_definition() -> None:
    """Σ|x − y|/k − ΣΣ|x_i − x_j|/(2k(k − 1)), all pairs, as `estimator="fair"` is defined."""
    rng = np.random.default_rng(3)
    members, y = rng.normal(0, 3, (7, 50)), rng.normal(0, 3, 50)
    pairs = np.abs(members[:, None] - members[None]).sum(axis=(0, 1))
    expected = np.abs(members - y).mean(axis=0) - pairs / (2 * 7 * 6)
    np.testing.assert_allclose(fair_crps(members, y), expected, rtol=1e-12)
    pictures = np.clip(np.rint(members * 20 + 120), 0, 255).astype(np.uint8)
    as_floats = fair_crps(pictures.astype(np.float64), y)
    np.testing.assert_allclose(fair_crps(pictures, y), as_floats, rtol=1e-12)
    with pytest.raises(ValueError, match="2 samples"):
        fair_crps(members[:1], y)


def test_fair_crps_is_that_of_scoringrules() -> None:
    scoringrules = pytest.importorskip("scoringrules", reason="of requirements-dev.txt")
    rng = np.random.default_rng(4)
    members, y = rng.normal(0, 3, (9, 40)), rng.normal(0, 3, 40)
    expected = scoringrules.crps_ensemble(y, members, m_axis=0, estimator="fair")
    np.testing.assert_allclose(fair_crps(members, y), expected, rtol=1e-10)
    normal = scoringrules.crps_normal(y, 0.0, 3.0)
    np.testing.assert_allclose(crps_of_normal(y, np.full(40, 3.0)), normal, rtol=1e-10)


@pytest.mark.parametrize("k", [2, 5, 19])
def test_fair_crps_does_not_depend_on_the_number_of_samples(k: int) -> None:
    """That of N(0, 1) is 1/√π for any k; four standard errors of 200 000 are 0.008."""
    rng = np.random.default_rng(k)
    found = fair_crps(rng.standard_normal((k, NUM)), rng.standard_normal(NUM)).mean()
    assert found == pytest.approx(1 / np.sqrt(np.pi), abs=0.008)
