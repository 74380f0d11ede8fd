"""Calibration of a predicted normal law N(m, v) per pixel against the real high-res image.

Grey levels, float64. One image is reduced to a few means and to fixed histograms that add up over
images; no pixel is kept. docs/theory.md, eq. 23 to 30, defines the metrics.

Equal-count bins, sparsification and the area under it need the order of all pixels of all images.
They are read off histograms: 4096 bins of predicted std, even in its logarithm (0.17 % each), and
4096 of |error| (1/16 grey level). Within a bin the pixels count as alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from utils.metrics import VARIANCE_FLOOR

Array = npt.NDArray[np.float64]
# kind of curve → what is along it → values
Curves: TypeAlias = dict[str, dict[str, list[float]]]

NUM_BINS = 4096
LOWEST_STD, HIGHEST_STD = 0.25, 256.0
ERROR_BINS_PER_LEVEL = 16
NUM_RELIABILITY_BINS = 20
# shares of the pixels that are taken out, most uncertain first
FRACTIONS = np.arange(100) / 100
# central intervals, in per cent; the first four are metrics, all of them make the curve
COVERAGES = (50, 68, 90, 95)
CURVE = tuple(sorted({*COVERAGES, *range(5, 100, 5)}))
_Z90 = NormalDist().inv_cdf(0.95)


@dataclass
class Histograms:
    """Sums over the pixels of any number of images, by predicted std and by |error|.

    Attributes:
        count, variance, square: pixels, Σ v and Σ (y − m)² by predicted std, (4096,).
        error_count, error_square: pixels and Σ (y − m)² by |y − m|, (4096,).
        covered: pixels inside each central interval of the coverage curve.
    """

    count: Array = field(default_factory=lambda: np.zeros(NUM_BINS))
    variance: Array = field(default_factory=lambda: np.zeros(NUM_BINS))
    square: Array = field(default_factory=lambda: np.zeros(NUM_BINS))
    error_count: Array = field(default_factory=lambda: np.zeros(NUM_BINS))
    error_square: Array = field(default_factory=lambda: np.zeros(NUM_BINS))
    covered: Array = field(default_factory=lambda: np.zeros(len(CURVE)))

    def add(self, other: Histograms) -> None:
        """Take in the sums of more pixels."""
        for name, values in vars(other).items():
            getattr(self, name).__iadd__(values)

    def without(self, part: Histograms) -> Histograms:
        """The sums of the pixels that are not in `part`."""
        return Histograms(**{name: sums - getattr(part, name) for name, sums in vars(self).items()})


def calibrate(high_res: Array, mean: Array, variance: Array) -> tuple[dict[str, float], Histograms]:
    """Means over the pixels of one image, and its histograms.

    With z² = (y − m)²/v: `z2` its mean; `nll` the mean of ½ (ln 2πv + z²); `coverage_p` the
    share with |z| ≤ Φ⁻¹(½ + p/200); `interval_score_90` the mean of
    2 z₉₀ √v + 20 max(|y − m| − z₉₀ √v, 0) (Gneiting and Raftery, "Strictly proper scoring rules",
    2007, eq. 43); `crps` that of `crps_of_normal`; `sharpness_mean_std` the mean of √v;
    `mean_variance` that of v.
    y, m and v have one shape; values of v below 1/12 are raised to it and counted
    (`num_floored`).
    """
    is_low = variance < VARIANCE_FLOOR
    v = np.where(is_low, VARIANCE_FLOOR, variance).ravel()
    error = np.abs(high_res - mean).ravel()
    std, square = np.sqrt(v), error * error
    z = error / std
    z2 = z * z
    bounds = [NormalDist().inv_cdf(0.5 + p / 200) for p in CURVE]
    place = np.searchsorted(bounds, z, side="left")
    covered = np.cumsum(np.bincount(place, minlength=len(CURVE) + 1))[:-1].astype(np.float64)
    half_width = _Z90 * std
    means = {
        "z2": z2.mean(),
        "nll": 0.5 * (np.log(2 * np.pi * v) + z2).mean(),
        **{f"coverage_{p}": covered[CURVE.index(p)] / v.size for p in COVERAGES},
        "sharpness_mean_std": std.mean(),
        "mean_variance": v.mean(),
        "crps": crps_of_normal(error, std).mean(),
        "interval_score_90": (2 * half_width + 20 * np.maximum(error - half_width, 0)).mean(),
        "num_floored": np.count_nonzero(is_low),
    }
    by_std = place_of_std(std)
    by_error = np.minimum((error * ERROR_BINS_PER_LEVEL).astype(np.int64), NUM_BINS - 1)
    histograms = Histograms(
        count=_binned(by_std),
        variance=_binned(by_std, v),
        square=_binned(by_std, square),
        error_count=_binned(by_error),
        error_square=_binned(by_error, square),
        covered=covered,
    )
    return {name: float(value) for name, value in means.items()}, histograms


def place_of_std(std: Array) -> npt.NDArray[np.int64]:
    """The bin of a predicted std, 0 to 4095; those beyond the histogram fall into its ends."""
    scale = NUM_BINS / np.log(HIGHEST_STD / LOWEST_STD)
    place = (np.log(std / LOWEST_STD) * scale).astype(np.int64)
    return np.asarray(np.clip(place, 0, NUM_BINS - 1))


def crps_of_normal(error: Array, std: Array) -> Array:
    """Continuous ranked probability score of N(m, σ²), in the units of the error; 0 is perfect.

    ∫ (F(t) − 1{t ≥ y})² dt = σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π), z = (y − m)/σ. It is |y − m| for a
    law without spread, so scores of images are comparable with their mean absolute error.
    Source: Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007,
    section 4.2, eq. 21 (there with the other sign).

    Args:
        error: |y − m| or y − m (the law is symmetric), any shape.
        std: σ > 0, the same shape.
    """
    z = error / std
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    score: Array = std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return score


def ence(sums: Histograms) -> float:
    """Expected normalised calibration error over 20 equal-count bins of predicted std.

    Mean over the bins of |√(mean v) − √(mean (y − m)²)| / √(mean v). Source: Levi et al.,
    "Evaluating and calibrating uncertainty prediction in regression tasks", arXiv 1905.11659.
    """
    predicted, observed, _ = reliability(sums)
    return float(np.mean(np.abs(predicted - observed) / predicted))


def ause(sums: Histograms) -> float:
    """Area between the sparsification curve and its oracle, both over the rmse of all pixels.

    Integral over the removed share 0 … 0.99, trapezoidal. Source: Ilg et al., "Uncertainty
    estimates and multi-hypotheses networks for optical flow", arXiv 1802.07095.
    """
    rmse, oracle = _sparsification(sums)
    if not rmse[0] > 0:
        return 0.0
    gap = (rmse - oracle) / rmse[0]
    return float(np.sum((gap[1:] + gap[:-1]) / 2) * (FRACTIONS[1] - FRACTIONS[0]))


def spread_skill_ratio(sums: Histograms) -> float:
    """Rms predicted std over the rms error of all pixels: 1 for an exact law, below it too little.

    Source: Fortin et al., "Why should ensemble spread match the RMSE of the ensemble mean?", 2014.
    """
    square = float(sums.square.sum())
    return float(np.sqrt(sums.variance.sum() / square)) if square > 0 else np.inf


def spread_skill_slope(sums: Histograms) -> float:
    """Least-squares slope of ln rmse over ln predicted std in the 20 bins: 1 for an exact law.

    Below 1 large stds are too large, or small ones too small; nan where all are alike or a bin has
    no error.
    """
    predicted, observed, _ = reliability(sums)
    if not (observed > 0).all():
        return float(np.nan)
    x, y = np.log(predicted), np.log(observed)
    x = x - x.mean()
    spread = float(x @ x)
    return float(x @ y) / spread if spread > 1e-12 else float(np.nan)


def curves(sums: Histograms) -> Curves:
    """Reliability, coverage and sparsification, as lists for drawing."""
    predicted, observed, count = reliability(sums)
    rmse, oracle = _sparsification(sums)
    return {
        "reliability": {
            "predicted_std": predicted.tolist(),
            "rmse": observed.tolist(),
            "count": count.tolist(),
        },
        "coverage": {
            "nominal": [p / 100 for p in CURVE],
            "observed": (sums.covered / sums.count.sum()).tolist(),
        },
        "sparsification": {
            "fraction": FRACTIONS.tolist(),
            "rmse": rmse.tolist(),
            "oracle_rmse": oracle.tolist(),
        },
    }


def reliability(sums: Histograms) -> tuple[Array, Array, Array]:
    """√(mean v), √(mean (y − m)²) and pixels of the 20 bins, by increasing predicted std."""
    total = sums.count.sum()
    edges = total * np.arange(NUM_RELIABILITY_BINS + 1) / NUM_RELIABILITY_BINS
    count = np.diff(edges)
    variance = np.diff(up_to(edges, sums.count, sums.variance))
    square = np.diff(up_to(edges, sums.count, sums.square))
    return np.sqrt(variance / count), np.sqrt(np.maximum(square, 0) / count), count


def _sparsification(sums: Histograms) -> tuple[Array, Array]:
    """Rmse of what is left once each share is taken out: by predicted std, and by |error|."""
    kept = sums.count.sum() * (1 - FRACTIONS)
    square = up_to(kept, sums.count, sums.square)
    best = up_to(kept, sums.error_count, sums.error_square)
    return np.sqrt(square / kept), np.sqrt(best / kept)


def up_to(counts: Array, count: Array, values: Array) -> Array:
    """Σ values of the first `counts` pixels; a bin that is cut gives its share."""
    used = count > 0
    ends = np.concatenate([[0.0], np.cumsum(count[used])])
    sums = np.concatenate([[0.0], np.cumsum(values[used])])
    return np.asarray(np.interp(counts, ends, sums), np.float64)


def _binned(place: npt.NDArray[np.int64], values: Array | None = None) -> Array:
    return np.bincount(place, values, minlength=NUM_BINS).astype(np.float64)
