"""What the calibration metrics are where nothing is wrong: of a normal law, and of n samples.

Few of these metrics have a fixed best value. With the exact law N(m, v) of every pixel the area
under the sparsification error is above 0, the likelihood and the scores depend on v, and the
normal law N(x̄, k₂(1 + 1/n)) of n exact samples is worse than N(m, v), as its z follows Student's t
law with n − 1 degrees of freedom. docs/theory.md, eq. 31 to 33. All of it follows from the means
and the histogram of the predicted stds, so nothing is simulated and no pixel is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypeAlias, TypedDict

import numpy as np
from scipy.special import digamma, erf, gammainc, gammaincinv, ndtr, polygamma, stdtr

from sr_var.verify.numbers.calibration import (
    COVERAGES,
    CURVE,
    ERROR_BINS_PER_LEVEL,
    HIGHEST_STD,
    LOWEST_STD,
    NUM_BINS,
    Array,
    Curves,
    Histograms,
    ause,
    curves,
    reliability,
    spread_skill_ratio,
    spread_skill_slope,
)

Metrics: TypeAlias = dict[str, float]
# metrics that are printed beside their value of an exact law
REFERENCED = ("z2", "nll", "crps", *(f"coverage_{p}" for p in COVERAGES), "interval_score_90")
_Z90 = NormalDist().inv_cdf(0.95)
# bins of the histograms that are taken together: 1.4 % of a std, 1/4 grey level of an error
_MERGED_STDS, _MERGED_ERRORS = 8, 4
_NUM_QUANTILES = 4000


class ReferenceSection(TypedDict, total=False):
    """Section `reference` of `results.json`: metrics of exact laws, in the place of both routes.

    `known_law` is there where the law is known, and `curves` (by route) are then its own;
    `sampler_law`, with the samples' pictures, is of samples in the place of y.
    """

    nets: Metrics
    samples: Metrics
    known_law: dict[str, Metrics]
    sampler_law: Metrics
    curves: dict[str, Curves]


@dataclass(frozen=True)
class Student:
    """z = (y − x̄)/s′ of a normal law, s′² = k₂(1 + 1/n); without a number of samples, s′ = σ.

    Attributes:
        z2: E z² = (n − 1)/(n − 3), infinite for n ≤ 3.
        covered: P(|z| ≤ Φ⁻¹(½ + p/200)) for each p of the coverage curve.
        score, crps: interval score at 90 % and CRPS of N(x̄, s′²), over E s′.
    """

    z2: float
    covered: Array
    score: float
    crps: float


@lru_cache(maxsize=8)
def student(num_samples: int | None) -> Student:
    """What n samples of a normal law show, None: what the law itself does.

    With u = s′/σ′, σ′² = σ²(1 + 1/n), which y − x̄ is independent of, and h(c) = E max(|ε| − c, 0)
    of a standard normal ε: the score is (2qE u + 20 E h(qu))/E u, q = Φ⁻¹(0.95), and the CRPS
    (√(2/π) E√(1 + u²) − E u/√π)/E u. E over u by 4000 quantiles of χ².
    """
    bounds = np.array([NormalDist().inv_cdf(0.5 + p / 200) for p in CURVE])
    if num_samples is None:
        u, z2, covered = np.ones(1), 1.0, 2 * ndtr(bounds) - 1
    else:
        dof = num_samples - 1
        levels = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
        u = np.sqrt(gammaincinv(dof / 2, levels) * 2 / dof)
        z2 = dof / (dof - 2) if dof > 2 else math.inf
        covered = 2 * stdtr(dof, bounds) - 1
    c = _Z90 * u
    beyond = 2 * (np.exp(-0.5 * c * c) / math.sqrt(2 * math.pi) - c * ndtr(-c))
    score = (2 * c + 20 * beyond).mean() / u.mean()
    crps = math.sqrt(2 / math.pi) * np.sqrt(1 + u * u).mean() / u.mean() - 1 / math.sqrt(math.pi)
    return Student(z2, covered, float(score), float(crps))


def expected_of_normal(found: Mapping[str, float], num_samples: int | None) -> Metrics:
    """The metrics `REFERENCED` that a normal law would show with the stds that were predicted.

    Args:
        found: the route's metrics `z2`, `nll` and `sharpness_mean_std`.
        num_samples: n for the law of n samples; None for a law with exact mean and variance.
    """
    exact, mean_std = student(num_samples), found["sharpness_mean_std"]
    half_log = found["nll"] - 0.5 * found["z2"]  # ⟨½ ln 2πv⟩
    return {
        "z2": exact.z2,
        "nll": half_log + 0.5 * exact.z2,
        "crps": mean_std * exact.crps,
        **{f"coverage_{p}": float(exact.covered[CURVE.index(p)]) for p in COVERAGES},
        "interval_score_90": mean_std * exact.score,
    }


def expected_histograms(sums: Histograms, num_samples: int | None) -> tuple[Histograms, Array]:
    """The histograms that a normal law would show, and Σ E(y − m)⁴ by predicted std.

    Without a number of samples the predicted std of a pixel is its σ. That of n samples scatters
    about σ: the law of ln σ over the pixels is that of ln s′, shrunk towards its mean until its
    variance has lost ψ′((n − 1)/2)/4, which the noise of k₂ adds.
    """
    count, variance = (
        values.reshape(-1, _MERGED_STDS).sum(axis=1) for values in (sums.count, sums.variance)
    )
    used = count > 0
    weight, std = count[used], np.sqrt(variance[used] / count[used])
    covered = student(num_samples).covered * weight.sum()
    if num_samples is None:
        by_std, square, fourth = (_at(used, weight * std**k) for k in (0, 2, 4))
        predicted, fourth = square, 3 * fourth
    else:
        dof = num_samples - 1
        std = _without_noise(std, weight, dof)
        by_std, predicted, square, fourth = _spread(std, weight, dof)
    edges = np.arange(NUM_BINS // _MERGED_ERRORS + 1) * (_MERGED_ERRORS / ERROR_BINS_PER_LEVEL)
    edges[-1] = math.inf
    x = edges / (std[:, None] * math.sqrt(2))
    inside = erf(x)  # P(|e| < edge), a row a std
    with np.errstate(invalid="ignore"):
        less = np.where(np.isinf(x), 0.0, 2 * x * np.exp(-x * x) / math.sqrt(math.pi))
    error_count = np.diff(weight @ inside)
    error_square = np.diff((weight * std**2) @ (inside - less))
    return Histograms(by_std, predicted, square, error_count, error_square, covered), fourth


def expected_of_order(sums: Histograms, num_samples: int | None) -> tuple[Metrics, Curves]:
    """ENCE and AUSE of a normal law with the stds that were predicted, and its curves."""
    exact, fourth = expected_histograms(sums, num_samples)
    return metrics_of_order(exact, exact, fourth), curves(exact)


def metrics_of_order(drawn: Histograms, exact: Histograms, fourth: Array) -> Metrics:
    """ENCE, AUSE, spread and skill of a law; AUSE is that of `drawn`, where errors were drawn."""
    return {
        "ence": expected_ence(exact, fourth),
        "ause": ause(drawn),
        "spread_skill_ratio": spread_skill_ratio(exact),
        "spread_skill_slope": spread_skill_slope(exact),
    }


def expected_ence(exact: Histograms, fourth: Array) -> float:
    """ENCE of an exact law, with so many pixels as if each were a draw of its own.

    A bin with the ratio r of rmse to predicted std shows E|r(1 + δ) − 1|, δ normal. Pixels that
    are alike in an image count for fewer, so ENCE of real images may be larger.

    Args:
        exact: by predicted std, pixels, Σ v̂ and the expectation of Σ (y − m)².
        fourth: the expectation of Σ (y − m)⁴.
    """
    predicted, observed, count = reliability(exact)
    # the variance of Σ (y − m)²
    scatter = np.maximum(fourth - exact.square**2 / np.maximum(exact.count, 1e-12), 0)
    _, spread, _ = reliability(Histograms(count=exact.count, variance=scatter, square=scatter))
    ratio = observed / predicted
    noise = ratio * 0.5 * spread / (np.sqrt(count) * np.maximum(observed, 1e-12) ** 2)
    return float(np.mean(mean_abs_of_normal(ratio - 1, noise)))


def _at(used: Array, values: Array) -> Array:
    found = np.zeros(len(used))
    found[used] = values
    return found


def _without_noise(std: Array, weight: Array, dof: int) -> Array:
    """Stds whose logarithm varies as that of σ does, and whose mean square is that of `std`."""
    share, log_std = weight / weight.sum(), np.log(std)
    centre = share @ log_std
    spread = share @ (log_std - centre) ** 2
    noise = float(polygamma(1, dof / 2)) / 4
    factor = math.sqrt(max(0.0, 1 - noise / spread)) if spread > 0 else 0.0
    shift = -0.5 * (float(digamma(dof / 2)) - math.log(dof / 2))
    found = np.exp(centre + shift + factor * (log_std - centre))
    return np.asarray(found * math.sqrt((share @ std**2) / (share @ found**2)))


def _spread(std: Array, weight: Array, dof: int) -> tuple[Array, Array, Array, Array]:
    """By s′: pixels, Σ s′², Σ σ′² and Σ 3σ′⁴, where s′²/σ′² is χ² over its degrees of freedom."""
    num, half = NUM_BINS // _MERGED_STDS, dof / 2
    edges = LOWEST_STD * (HIGHEST_STD / LOWEST_STD) ** (np.arange(num + 1) / num)
    edges[0], edges[-1] = 0.0, math.inf
    x = half * (edges / std[:, None]) ** 2
    share, second = (np.diff(gammainc(half + k, x), axis=1) for k in (0, 1))
    of_square, of_fourth = weight * std**2, 3 * weight * std**4
    return weight @ share, of_square @ second, of_square @ share, of_fourth @ share


def mean_abs_of_normal(mean: Array, std: Array) -> Array:
    """E|N(mean, std²)|."""
    safe = np.maximum(std, 1e-300)
    z = mean / safe
    return np.asarray(
        safe * math.sqrt(2 / math.pi) * np.exp(-0.5 * z * z) + mean * (2 * ndtr(z) - 1)
    )
