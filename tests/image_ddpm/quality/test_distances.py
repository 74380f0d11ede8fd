"""Fréchet and kernel distances against closed forms, invariances and the law of their errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from image_ddpm.quality.distances import (
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    gaussian_floor,
    halves_distance,
    kernel_distance,
    merge_statistics,
    squared_mmd,
)

Array = NDArray[np.float64]


def _covariance(rng: np.random.Generator, dimension: int, rank: int) -> Array:
    root = rng.standard_normal((dimension, rank))
    return root @ root.T


def _rotation(rng: np.random.Generator, dimension: int) -> Array:
    return np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]


def _assert_same(a: FeatureStatistics, b: FeatureStatistics, tolerance: float = 1e-12) -> None:
    assert a.count == b.count
    scale = float(np.abs(b.covariance).max())
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12, atol=1e-12 * math.sqrt(scale))
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=0, atol=tolerance * scale)


def test_statistics_equal_those_of_numpy() -> None:
    features = np.random.default_rng(0).gamma(2.0, 3.0, (50, 7))
    found = feature_statistics(features)
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-12)
    assert found.count == 50


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    order_seed=st.integers(0, 99),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
)
@settings(deadline=None, max_examples=60)
def test_merged_shards_equal_one_pass_in_any_order(
    sizes: list[int], order_seed: int, offset: float
) -> None:
    """Also far from zero, where a sum of squares would lose eight digits of the covariance."""
    rng = np.random.default_rng(order_seed)
    features = rng.standard_normal((sum(sizes), 4)) + offset
    shards = [feature_statistics(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    merged, *rest = [shards[i] for i in rng.permutation(len(shards))]
    for shard in rest:
        merged = merge_statistics(merged, shard)
    _assert_same(merged, feature_statistics(features), 1e-12 * (1 + offset))


def test_merging_refuses_other_dimensions() -> None:
    a, b = (feature_statistics(np.ones((3, d))) for d in (2, 3))
    with pytest.raises(ValueError, match="2 and 3"):
        merge_statistics(a, b)


@pytest.mark.parametrize("features", [np.zeros((0, 3)), np.zeros(3), [[1.0, math.nan]]])
def test_features_that_are_none_are_refused(features: object) -> None:
    with pytest.raises(ValueError, match="features"):
        feature_statistics(features)  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [0, 1, 5, 20])
def test_identical_laws_have_no_distance_and_shifted_ones_that_of_the_means(rank: int) -> None:
    rng = np.random.default_rng(rank)
    mean, shift = rng.standard_normal((2, 20))
    cov = _covariance(rng, 20, rank)
    rounding = 1e-13 * (1 + float(np.trace(cov)))
    assert frechet_distance(mean, cov, mean, cov) == pytest.approx(0.0, abs=rounding)
    shifted = frechet_distance(mean, cov, mean + shift, cov)
    assert shifted == pytest.approx(float(shift @ shift), abs=rounding)


@given(seed=st.integers(0, 10_000), dimension=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_commuting_covariances_have_a_closed_form(seed: int, dimension: int) -> None:
    """One eigenbasis: ‖δ‖² + Σ (√λᵢ − √κᵢ)², some of the eigenvalues zero."""
    rng = np.random.default_rng(seed)
    basis = _rotation(rng, dimension)
    first, second = rng.gamma(1.0, 2.0, (2, dimension)) * (rng.random((2, dimension)) < 0.7)
    covs = [(basis * values) @ basis.T for values in (first, second)]
    means = rng.standard_normal((2, dimension))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    found = frechet_distance(means[0], covs[0], means[1], covs[1])
    # the root of an eigenvalue that is only rounding, 10⁻⁸, times the root of a real one
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(
    seed=st.integers(0, 10_000),
    dimension=st.integers(1, 10),
    ranks=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(deadline=None, max_examples=60)
def test_distance_is_symmetric_free_of_rotation_and_grows_with_the_square_of_the_scale(
    seed: int, dimension: int, ranks: tuple[int, int], scale: float
) -> None:
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((2, dimension))
    covs = [_covariance(rng, dimension, rank) for rank in ranks]
    found = frechet_distance(means[0], covs[0], means[1], covs[1])
    turn = _rotation(rng, dimension) * scale
    turned = frechet_distance(
        turn @ means[0], turn @ covs[0] @ turn.T, turn @ means[1], turn @ covs[1] @ turn.T
    )
    rounding = 1e-6 * (1 + float(np.trace(covs[0] + covs[1])))
    assert found >= 0.0
    assert frechet_distance(means[1], covs[1], means[0], covs[0]) == pytest.approx(
        found, rel=1e-9, abs=rounding
    )
    assert turned == pytest.approx(found * scale**2, rel=1e-9, abs=rounding * scale**2)


def test_singular_covariances_of_few_samples_have_their_exact_distance() -> None:
    """tr (C₁C₂)^½ is the nuclear norm of the product of the centred samples, no root taken."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((6, 40)), 2.0 + 3.0 * rng.standard_normal((9, 40))
    first, second = feature_statistics(a), feature_statistics(b)
    roots = [(x - x.mean(axis=0)) / math.sqrt(len(x) - 1) for x in (a, b)]
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    delta = a.mean(axis=0) - b.mean(axis=0)
    expected = delta @ delta + sum(np.sum(root * root) for root in roots) - 2.0 * overlap
    found = frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    assert found == pytest.approx(expected, rel=1e-12)


def test_disjoint_supports_have_their_exact_distance() -> None:
    """C₁C₂ = 0, where roots of rounding errors would show."""
    first, second = np.diag([4.0, 0.0, 0.0]), np.diag([0.0, 9.0, 0.0])
    turn = _rotation(np.random.default_rng(0), 3)
    found = frechet_distance(
        np.zeros(3), turn @ first @ turn.T, np.zeros(3), turn @ second @ turn.T
    )
    assert found == pytest.approx(13.0, rel=1e-13)


@pytest.mark.parametrize(
    ("cov", "part"),
    [
        (np.eye(3), "shape"),
        (np.diag([1.0, -1.0]), "negative eigenvalue"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (np.array([[math.inf, 0.0], [0.0, 1.0]]), "not finite"),
    ],
)
def test_a_matrix_that_is_no_covariance_is_refused(cov: Array, part: str) -> None:
    for pair in ((cov, np.eye(2)), (np.eye(2), cov)):
        with pytest.raises(ValueError, match=part):
            frechet_distance(np.zeros(2), pair[0], np.zeros(2), pair[1])


def test_means_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance([math.nan, 0.0], np.eye(2), np.zeros(2), np.eye(2))


def test_gaussian_floor_of_white_noise_has_its_closed_form() -> None:
    expected = (1 / 50 + 1 / 200) * (4.0 * 6 + 4.0 * 6 * 7 / 4)
    assert gaussian_floor(4.0 * np.eye(6), 50, 200) == pytest.approx(expected, rel=1e-12)
    assert gaussian_floor(np.zeros((3, 3)), 5, 5) == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        gaussian_floor(np.eye(2), 0, 5)


def test_halves_of_normal_vectors_lie_where_the_gaussian_floor_says() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    found = [halves_distance(rng.standard_normal((2000, 5)) @ root, seed) for seed in range(200)]
    expected = gaussian_floor(root.T @ root, 1000, 1000)
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert error < 0.05 * expected
    assert np.mean(found) == pytest.approx(expected, abs=3.5 * error)


def test_halves_are_drawn_by_the_seed_and_need_four_vectors() -> None:
    features = np.random.default_rng(1).standard_normal((21, 3))
    assert (
        halves_distance(features, 0) == halves_distance(features, 0) != halves_distance(features, 1)
    )
    assert halves_distance(np.ones((5, 2)), 0) == 0.0
    with pytest.raises(ValueError, match="4 or more"):
        halves_distance(features[:3], 0)


def test_squared_mmd_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)) + 1.0

    def k(a: Array, b: Array) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [
        np.mean([k(a, b) for a, b in itertools.permutations(z, 2)])  # ordered pairs, i ≠ j
        for z in (x, y)
    ]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_squared_mmd_is_unbiased_over_every_possible_sample() -> None:
    """Expectation by enumeration of all pairs of samples of two laws on three points."""
    values = np.array([[-1.0], [0.5], [2.0]])
    laws = np.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
    kernel = (values @ values.T + 1) ** 3
    difference = laws[0] - laws[1]
    expected = difference @ kernel @ difference
    total = 0.0
    for x in itertools.product(range(3), repeat=3):
        for y in itertools.product(range(3), repeat=2):
            weight = laws[0][list(x)].prod() * laws[1][list(y)].prod()
            total += weight * squared_mmd(values[list(x)], values[list(y)])
    assert total == pytest.approx(expected, rel=1e-11)


def test_kernel_distance_of_a_shift_lies_within_its_error_of_the_exact_one() -> None:
    """x ~ N(0, 1), y ~ N(δ, 1): E (xy + 1)³ = 1 + 3 E x E y + 3 E x² E y² + E x³ E y³."""
    shift, rng = 0.7, np.random.default_rng(3)

    def expected_kernel(a: float, b: float) -> float:
        second, third = (lambda m: 1 + m * m), (lambda m: m**3 + 3 * m)
        return 1 + 3 * a * b + 3 * second(a) * second(b) + third(a) * third(b)

    exact = expected_kernel(0, 0) + expected_kernel(shift, shift) - 2 * expected_kernel(0, shift)
    x, y = rng.standard_normal((2, 3000, 1))
    found = kernel_distance(x, y + shift, 50, 500, 0)
    assert abs(found.distance - exact) < 3.5 * found.standard_error < 0.8 * exact
    assert found.subset_std > 0


@pytest.mark.parametrize(("shift", "lowest", "highest"), [(0.5, 0.8, 1.25), (0.0, 1.0, 2.5)])
def test_the_standard_error_is_that_of_new_samples(
    shift: float, lowest: float, highest: float
) -> None:
    """Over 150 pairs of new samples; for equal laws it is √3 too large, never too small."""
    rng = np.random.default_rng(7)
    found = [
        kernel_distance(*(rng.standard_normal((2, 120, 3)) + [[[0.0]], [[shift]]]), 40, 60, seed)
        for seed in range(150)
    ]
    true = np.std([one.distance for one in found], ddof=1)
    said = math.sqrt(np.mean([one.standard_error**2 for one in found]))
    assert lowest < said / true < highest


def test_kernel_distance_is_drawn_by_the_seed_and_can_be_ended() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 30, 4))
    assert kernel_distance(x, y, 5, 10, 1) == kernel_distance(x, y, 5, 10, 1)
    assert kernel_distance(x, y, 5, 10, 1) != kernel_distance(x, y, 5, 10, 2)
    calls: list[int] = []

    def end_at_three() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kernel_distance(x, y, 5, 10, 1, end_at_three)
    assert len(calls) == 3


@pytest.mark.parametrize(("num_subsets", "size"), [(1, 5), (5, 1), (5, 30), (5, 31)])
def test_subsets_that_say_nothing_are_refused(num_subsets: int, size: int) -> None:
    x = np.zeros((30, 2))
    with pytest.raises(ValueError, match="subsets of"):
        kernel_distance(x, x, num_subsets, size, 0)
    with pytest.raises(ValueError, match="one D"):
        kernel_distance(x, np.zeros((30, 3)), 5, 5, 0)
    with pytest.raises(ValueError, match="one D"):
        squared_mmd(x, np.zeros((1, 2)))
