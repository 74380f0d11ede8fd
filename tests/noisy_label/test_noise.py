"""The laws of noisy labels against their definitions, and what follows from them in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from noisy_label.noise import (
    Array,
    Labels,
    biased_law,
    draw_labels,
    entropy,
    expected_cross_entropy,
    flip_points,
    generated_law,
    kl_divergence,
    predicted_accuracy,
    share_of_wrong_largest,
    uniform_law,
)

LABELS: Labels = np.arange(200, dtype=np.int64) % 10


def _clean(seed: int = 0, scale: float = 3.0) -> Array:
    """Log-softmax of a net that mostly knows the labels."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(LABELS), 10))
    logits[np.arange(len(LABELS)), LABELS] += scale
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def test_uniform_noise_spreads_what_is_left_evenly() -> None:
    law = uniform_law(LABELS[:10], 0.55)
    np.testing.assert_allclose(np.diag(law), 0.55)
    np.testing.assert_allclose(law[0, 1:], 0.05)
    np.testing.assert_allclose(law.sum(axis=1), 1)


def test_biased_noise_is_on_the_next_class() -> None:
    law = biased_law(LABELS[:10], 0.7)
    assert law[9, 0] == pytest.approx(0.3) and law[3, 4] == pytest.approx(0.3)
    np.testing.assert_allclose(np.diag(law), 0.7)
    assert np.count_nonzero(law) == 20


def test_generated_noise_scales_the_right_class_and_keeps_the_shares_of_the_rest() -> None:
    log_p = _clean()
    p, law, rows = np.exp(log_p), generated_law(log_p, LABELS, 0.6), np.arange(len(LABELS))
    np.testing.assert_allclose(law[rows, LABELS], 0.6 * p[rows, LABELS], rtol=1e-12)
    np.testing.assert_allclose(law.sum(axis=1), 1, rtol=1e-12)
    ratio = law / p
    ratio[rows, LABELS] = np.nan
    spread = np.nanmax(ratio, axis=1) / np.nanmin(ratio, axis=1)
    np.testing.assert_allclose(spread, 1, rtol=1e-9)
    np.testing.assert_allclose(generated_law(log_p, LABELS, 1.0), p, rtol=1e-12)


def test_generated_noise_is_exact_where_the_probability_rounds_to_one() -> None:
    """Logits 40 above the others: 1 − p is 4·10⁻¹⁷, below what fp32 and fp64 can subtract."""
    logits = np.full((1, 10), 0.0)
    logits[0, 3], logits[0, 5] = 40.0, math.log(2)
    log_p = logits - np.log(np.exp(logits).sum())
    law = generated_law(log_p, np.array([3]), 0.6)
    assert law[0, 3] == pytest.approx(0.6) and law[0, 5] == pytest.approx(0.4 * 0.2)
    assert law.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("alpha", [-0.1, 1.2, math.nan])
def test_share_outside_of_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="--alpha"):
        uniform_law(LABELS, alpha)


def test_draws_follow_the_law() -> None:
    """40 000 draws of one image: each frequency within four standard errors."""
    law = np.repeat(generated_law(_clean(1)[:1], LABELS[:1], 0.4), 40_000, axis=0)
    found = np.bincount(draw_labels(law, seed=3), minlength=10) / len(law)
    errors = np.sqrt(law[0] * (1 - law[0]) / len(law))
    assert (np.abs(found - law[0]) <= 4 * errors + 1e-12).all()


def test_draws_follow_from_the_seed_and_never_take_what_is_impossible() -> None:
    law = biased_law(np.repeat(LABELS, 500), 0.5)
    drawn = draw_labels(law, seed=1)
    assert (law[np.arange(len(law)), drawn] > 0).all()
    np.testing.assert_array_equal(drawn, draw_labels(law, seed=1))
    assert (drawn != draw_labels(law, seed=2)).any()


def test_sampled_ratio_is_within_four_standard_errors_of_its_expectation() -> None:
    labels = np.repeat(LABELS, 100)
    for alpha in (0.9, 0.5, 0.2):
        for law in (uniform_law(labels, alpha), biased_law(labels, alpha)):
            ratio = float(np.mean(draw_labels(law, seed=0) == labels))
            bound = 4 * math.sqrt(alpha * (1 - alpha) / len(labels))
            assert abs(ratio - alpha) < bound


def test_entropies_have_their_closed_forms() -> None:
    assert entropy(biased_law(LABELS, 0.5))[0] == pytest.approx(math.log(2))
    assert entropy(uniform_law(LABELS, 0.1))[0] == pytest.approx(math.log(10))
    assert entropy(uniform_law(LABELS, 1.0))[0] == 0


def test_cross_entropy_is_entropy_plus_divergence_and_least_at_the_law() -> None:
    law, log_p = uniform_law(LABELS, 0.6), _clean(2)
    with np.errstate(divide="ignore"):
        own = np.log(law)
    np.testing.assert_allclose(expected_cross_entropy(law, own), entropy(law), rtol=1e-12)
    assert (kl_divergence(law, log_p) > 0).all()
    np.testing.assert_allclose(
        expected_cross_entropy(law, log_p) - kl_divergence(law, log_p), entropy(law)
    )


@pytest.mark.parametrize(
    ("alpha", "uniform", "biased"), [(0.6, 1, 1), (0.5, 1, 0.5), (0.4, 1, 0), (0.1, 0.1, 0)]
)
def test_predicted_accuracy_falls_where_another_class_is_likelier(
    alpha: float, uniform: float, biased: float
) -> None:
    assert predicted_accuracy(uniform_law(LABELS, alpha), LABELS) == pytest.approx(uniform)
    law = biased_law(LABELS, alpha)
    assert predicted_accuracy(law, LABELS) == pytest.approx(biased)
    assert share_of_wrong_largest(law, LABELS) == (1 if alpha < 0.5 else 0)


def test_generated_law_flips_at_its_flip_point() -> None:
    log_p = _clean(3, scale=2.0)
    points = flip_points(log_p, LABELS)
    for place, point in enumerate(points):
        rows, label = log_p[place : place + 1], LABELS[place : place + 1]
        above = share_of_wrong_largest(generated_law(rows, label, min(1.0, point + 1e-6)), label)
        below = share_of_wrong_largest(generated_law(rows, label, min(1.0, point - 1e-6)), label)
        assert below == 1 and above == (1 if point > 1 else 0)
