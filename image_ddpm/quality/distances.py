"""Distances between two sets of feature vectors; mathematics on float64 arrays only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]

# a covariance may miss symmetry and positivity by rounding; by more than this it is none
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean (D,), unbiased covariance (D, D) (zeros for one vector) and number of vectors.

    A number of 0 is one that nobody knows, as of published statistics.
    """

    mean: Float64Array
    covariance: Float64Array
    count: int


class KernelDistance(NamedTuple):
    """A kernel distance and how sure it is; see `kernel_distance`."""

    distance: float
    standard_error: float
    subset_std: float


def feature_statistics(features: ArrayLike) -> FeatureStatistics:
    """Mean and unbiased covariance of features (N, D), about the mean, in float64.

    Raises ValueError for another shape, no vector, or values that are not finite.
    """
    values = feature_matrix(features)
    mean = values.mean(axis=0)
    deviation = values - mean
    covariance = deviation.T @ deviation / max(len(values) - 1, 1)
    return FeatureStatistics(mean, covariance, len(values))


def merge_statistics(a: FeatureStatistics, b: FeatureStatistics) -> FeatureStatistics:
    """The statistics of both sets of vectors together, as one pass over all would give them.

    Sums of products about the means add up, with n_a n_b / n · δδᵀ for the distance δ of the means:
    no large numbers cancel, so shards may be merged in any number and order; ValueError for other
    dimensions. Source: Chan, Golub and LeVeque 1979 for the variance; Pébay, SAND2008-6212 (2008).
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"cannot merge features of {len(a.mean)} and {len(b.mean)} dimensions")
    count = a.count + b.count
    delta = b.mean - a.mean
    scatter = a.covariance * (a.count - 1) + b.covariance * (b.count - 1)
    scatter = scatter + np.outer(delta, delta) * (a.count * (b.count / count))
    mean = a.mean + delta * (b.count / count)
    return FeatureStatistics(mean, scatter / (count - 1), count)


def frechet_distance(mean1: ArrayLike, cov1: ArrayLike, mean2: ArrayLike, cov2: ArrayLike) -> float:
    """Fréchet distance of two normal laws, means (D,) and covariances (D, D), squared as is usual.

        ‖μ₁ − μ₂‖² + tr C₁ + tr C₂ − 2 tr (C₁^½ C₂ C₁^½)^½

    C₁C₂ has the eigenvalues of the symmetric C₁^½ C₂ C₁^½, whose roots are the singular values of
    C₁^½ C₂^½. These are computed here: no complex residue, and no root of a rounding error, which
    would leave 10⁻⁸ of the scale for each dimension that a singular covariance does not reach.
    Source: Heusel et al., "GANs trained by a two time-scale update rule", 2017, eq. 6; Dowson and
    Landau, 1982.

    Raises:
        ValueError: other shapes, values that are not finite, or a matrix that is no covariance.
    """
    first, second = (np.asarray(mean, dtype=np.float64) for mean in (mean1, mean2))
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"means of shapes {first.shape} and {second.shape}: need (D,) twice")
    cov_1, cov_2 = (np.asarray(cov, dtype=np.float64) for cov in (cov1, cov2))
    roots = [covariance_root(cov, len(first)) for cov in (cov_1, cov_2)]
    delta = first - second
    if not np.isfinite(delta).all():
        raise ValueError("a mean holds values that are not finite")
    overlap = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    distance = delta @ delta + np.trace(cov_1) + np.trace(cov_2) - 2.0 * overlap
    return max(float(distance), 0.0)


def covariance_root(covariance: Float64Array, dimension: int) -> Float64Array:
    """A matrix A, (D, rank), with A Aᵀ the covariance: its eigenvectors times root eigenvalues.

    Raises:
        ValueError: not (D, D), not finite, not symmetric, or clearly not positive semi-definite.
    """
    if covariance.shape != (dimension, dimension):
        raise ValueError(f"covariance of shape {covariance.shape}: need {(dimension, dimension)}")
    if not np.isfinite(covariance).all():
        raise ValueError("the covariance holds values that are not finite")
    scale = float(np.abs(covariance).max(initial=0.0))
    if float(np.abs(covariance - covariance.T).max(initial=0.0)) > _TOLERANCE * scale:
        raise ValueError("the covariance is not symmetric")
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
    if float(eigenvalues.min(initial=0.0)) < -_TOLERANCE * scale:
        raise ValueError(f"the covariance has a negative eigenvalue, {eigenvalues.min():.3g}")
    # below it an eigenvalue is rounding: its root would be 10⁸ times as large, and no longer small
    noise = dimension * np.finfo(np.float64).eps * float(eigenvalues.max(initial=0.0))
    is_real = eigenvalues > noise
    root: Float64Array = vectors[:, is_real] * np.sqrt(eigenvalues[is_real])
    return root


def halves_distance(features: ArrayLike, seed: int) -> float:
    """Fréchet distance between two random halves of one set: what finite samples alone give.

    Both halves follow one law, so the exact distance is 0. With an odd number one is left out;
    ValueError for fewer than 4 vectors.
    """
    a, b = map(feature_statistics, random_halves(features, seed))
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def random_halves(features: ArrayLike, seed: int) -> tuple[Float64Array, Float64Array]:
    """Two disjoint random halves of features (N, D); one is left out of an odd number.

    ValueError for fewer than 4 vectors.
    """
    values = np.asarray(features)
    half = len(values) // 2
    if half < 2:
        raise ValueError(f"{len(values)} vectors: two halves need 4 or more")
    order = np.random.default_rng(seed).permutation(len(values))
    return values[order[:half]], values[order[half : 2 * half]]


def gaussian_floor(covariance: ArrayLike, count1: int, count2: int) -> float:
    """Expected Fréchet distance of two samples of one normal law, to first order in 1/n.

        (1/n₁ + 1/n₂) (Σᵢ λᵢ + ½ Σᵢⱼ (1 + δᵢⱼ) λᵢλⱼ / (λᵢ + λⱼ)), λ the eigenvalues of C (D, D)

    From the distance to second order in the errors E of the covariances, ½ Σᵢⱼ Eᵢⱼ² / (λᵢ + λⱼ) in
    the eigenbasis, and E Eᵢⱼ² = λᵢλⱼ(1 + δᵢⱼ)(1/n₁ + 1/n₂) of normal vectors (Wishart). Good for
    counts far above D; heavier tails than normal raise it. ValueError for no covariance, or counts
    below 1.
    """
    if min(count1, count2) < 1:
        raise ValueError(f"counts {count1} and {count2} must be at least 1")
    matrix = np.asarray(covariance, dtype=np.float64)
    root = covariance_root(matrix, len(matrix))
    eigenvalues = np.sum(root * root, axis=0)
    product, total = np.outer(eigenvalues, eigenvalues), np.add.outer(eigenvalues, eigenvalues)
    ratio = product / total
    second_order = 0.5 * (ratio.sum() + np.trace(ratio))
    return float((1.0 / count1 + 1.0 / count2) * (eigenvalues.sum() + second_order))


def kernel_distance(
    features1: ArrayLike,
    features2: ArrayLike,
    num_subsets: int,
    subset_size: int,
    seed: int,
    after_subset: Callable[[], None] = lambda: None,
) -> KernelDistance:
    """Kernel distance: the unbiased squared MMD of (x·y/D + 1)³, averaged over random subsets.

    Unbiased: 0 on average for samples of one law, whatever their number, so it may be negative.
    Source: Bińkowski et al., "Demystifying MMD GANs", 2018.

    `subset_std` is the standard deviation s over subsets, as it is often published. Subsets of a
    sample overlap, so s/√K says nothing of the sample; with features (N, D), N of the smaller set,
    m in a subset (2 ≤ m < N) and K ≥ 2 subsets the standard error is

        s √(m / (N − m) + 1 / K),

    the delete-d jackknife (Shao and Wu, "A general theory for jackknife variance estimation",
    1989) and what averaging over K subsets only adds. Where the laws are equal it is too large, by
    √3 for m = N/2, as the statistic is degenerate there.

    `after_subset` is called after each subset; it may raise to end early.

    Raises:
        ValueError: other shapes, or numbers out of range.
    """
    x, y = np.asarray(features1), np.asarray(features2)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape}: need (N, D) with one D")
    smaller = min(len(x), len(y))
    if num_subsets < 2 or not 2 <= subset_size < smaller:
        raise ValueError(
            f"{num_subsets} subsets of {subset_size}: need 2 or more, of 2 to {smaller - 1} vectors"
        )
    rng = np.random.default_rng(seed)
    found = np.empty(num_subsets)
    for k in range(num_subsets):
        found[k] = squared_mmd(*(z[rng.choice(len(z), subset_size, replace=False)] for z in (x, y)))
        after_subset()
    std = float(found.std(ddof=1))
    error = std * math.sqrt(subset_size / (smaller - subset_size) + 1.0 / num_subsets)
    return KernelDistance(float(found.mean()), error, std)


def squared_mmd(features1: ArrayLike, features2: ArrayLike) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel k(x, y) = (x·y/D + 1)³.

        Σ_{i≠j} k(xᵢ, xⱼ) / (m(m−1)) + Σ_{i≠j} k(yᵢ, yⱼ) / (n(n−1)) − 2 Σᵢⱼ k(xᵢ, yⱼ) / (mn)

    Source: Gretton et al., "A kernel two-sample test", 2012, eq. 3; Bińkowski et al. 2018.

    Raises:
        ValueError: other shapes than (m, D) and (n, D), or fewer than 2 vectors in one.
    """
    x, y = feature_matrix(features1), feature_matrix(features2)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features of shapes {x.shape} and {y.shape}: need 2 or more, one D")
    return _mean_off_diagonal(x) + _mean_off_diagonal(y) - 2.0 * float(_kernel(x, y).mean())


def _mean_off_diagonal(x: Float64Array) -> float:
    kernel = _kernel(x, x)
    return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))


def _kernel(x: Float64Array, y: Float64Array) -> Float64Array:
    base: Float64Array = x @ y.T / x.shape[1] + 1.0
    return base * base * base


def feature_matrix(features: ArrayLike) -> Float64Array:
    """Features (N, D) in float64.

    Raises:
        ValueError: another shape, no vector, or values that are not finite.
    """
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"features of shape {values.shape}: need (N, D), one vector or more")
    if not np.isfinite(values).all():
        raise ValueError("the features hold values that are not finite")
    return values
