"""Errors between arrays and streaming moments, in float64 with explicit units.

Every function takes arrays of any real dtype and computes in float64: differences of uint8 arrays
wrap around otherwise. Arrays of different shapes, or without elements, are a ValueError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# 8-bit grey levels run from 0 to WHITE; half of that is a step of 1 of an image in [-1, 1].
WHITE = 255
HALF_RANGE_255 = WHITE / 2
# grey levels²: values are whole levels, so no prediction can have a variance below that of rounding
VARIANCE_FLOOR = 1 / 12

Float64Array = NDArray[np.float64]

# Wang et al. 2004, section III.C: a circular window of 11×11 pixels, standard deviation 1.5
_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03
MIN_SSIM_SIDE = 2 * _SSIM_RADIUS + 1


def mse(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Mean squared error, mean((estimate - reference)²), in squared units of the arrays."""
    difference = _difference(reference, estimate)
    return float(np.mean(difference * difference))


def mean_abs_error(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Mean absolute error, mean(|estimate - reference|), in units of the arrays."""
    return float(np.mean(np.abs(_difference(reference, estimate))))


def psnr(reference: ArrayLike, estimate: ArrayLike, *, data_range: float = WHITE) -> float:
    """Peak signal-to-noise ratio 10 log₁₀(data_range² / mse) in dB; infinite for equal arrays.

    Args:
        data_range: largest possible difference: 255 for grey levels, 2 for images in [-1, 1]. It
            belongs to the format; the maximum of a dark image would add decibels to its error.

    Raises:
        ValueError: a range that is not positive.
    """
    _require_range(data_range)
    return psnr_of_mse(mse(reference, estimate), data_range)


def psnr_of_mse(error: float, data_range: float = WHITE) -> float:
    """The same of a mean squared error in squared units of the range."""
    return math.inf if error == 0.0 else 10.0 * math.log10(data_range**2 / error)


def ssim(reference: ArrayLike, estimate: ArrayLike, *, data_range: float = WHITE) -> float:
    """Structural similarity, at most 1 (equal arrays), averaged over places and channels.

    With means μ, variances σ² and covariance σ_xy under a Gaussian window around each place,

        (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)),

    C₁ = (0.01 R)², C₂ = (0.03 R)², R the data range; the moments are weighted means, without a
    correction for the number of pixels. Places whose window leaves the image are left out.
    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, eq. 13 to 16 and section III.C.

    Args:
        reference: (H, W) or (H, W, C), sides of at least 11 pixels.
        estimate: same shape.
        data_range: largest possible difference: 255 for grey levels, 2 for images in [-1, 1].

    Raises:
        ValueError: different or unsuitable shapes, or a range that is not positive.
    """
    from scipy import ndimage  # slow to import; decoding workers need the other figures only

    _require_range(data_range)
    _difference(reference, estimate)
    x, y = (np.asarray(array, dtype=np.float64) for array in (reference, estimate))
    if x.ndim not in (2, 3) or min(x.shape[:2]) < MIN_SSIM_SIDE:
        raise ValueError(
            f"shape {x.shape}: SSIM needs (H, W) or (H, W, C) with sides of {MIN_SSIM_SIDE} or more"
        )
    inside = slice(_SSIM_RADIUS, -_SSIM_RADIUS)

    def smooth(array: Float64Array) -> Float64Array:
        smoothed: Float64Array = ndimage.gaussian_filter(
            array, _SSIM_SIGMA, radius=_SSIM_RADIUS, axes=(0, 1)
        )
        return smoothed[inside, inside]

    mean_x, mean_y = smooth(x), smooth(y)
    var_x = smooth(x * x) - mean_x * mean_x
    var_y = smooth(y * y) - mean_y * mean_y
    cov = smooth(x * y) - mean_x * mean_y
    c1, c2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return float(np.mean(luminance * (2.0 * cov + c2) / (var_x + var_y + c2)))


def nmse(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Normalised squared error ‖reference - estimate‖² / ‖reference‖², without unit.

    Zero for equal arrays, infinite where only the reference is zero everywhere.
    """
    error = float(np.sum(_difference(reference, estimate) ** 2))
    norm = float(np.sum(np.asarray(reference, dtype=np.float64) ** 2))
    if norm == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / norm


def percent(share: float) -> str:
    """100 times the share in two digits or, from 100 on, all of them: `1.4`, `0.025`, `142`."""
    value = 100 * share
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"


def percent_in_table(share: float) -> str:
    """100 times the share, for columns: two decimals, from 10 on one, from 100 on none: `2.70`."""
    value = 100 * share
    return f"{value:.{max(0, 2 - sum(abs(value) >= 10**k for k in (1, 2)))}f}"


def standard_error(values: ArrayLike) -> float | None:
    """Of the mean of n independent values: standard deviation / √n; None below two of them."""
    found = np.asarray(values, np.float64)
    return float(found.std(ddof=1)) / math.sqrt(found.size) if found.size > 1 else None


def _require_range(data_range: float) -> None:
    if not data_range > 0.0:
        raise ValueError(f"data_range {data_range}: give 255 for grey levels, 2 for [-1, 1]")


def _difference(reference: ArrayLike, estimate: ArrayLike) -> Float64Array:
    first = np.asarray(reference, dtype=np.float64)
    second = np.asarray(estimate, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"cannot compare shapes {first.shape} and {second.shape}: need equal ones with elements"
        )
    return second - first


@dataclass(frozen=True)
class Moments:
    """Count, mean and sums of powers of deviations, element by element; mergeable.

    Source of `merge`: Pébay, "Formulas for robust, one-pass parallel computation of covariances and
    arbitrary-order statistical moments", SAND2008-6212 (2008), pairwise update of orders 2, 3, 4.

    Attributes:
        count: number n of samples, at least 1.
        mean: x̄, float64, shape of one sample.
        m2: Σ (x - x̄)², same shape.
        m3: Σ (x - x̄)³.
        m4: Σ (x - x̄)⁴.
    """

    count: int
    mean: Float64Array
    m2: Float64Array
    m3: Float64Array
    m4: Float64Array

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"moments of {self.count} samples: give at least one")
        assert self.mean.shape == self.m2.shape == self.m3.shape == self.m4.shape

    @classmethod
    def from_samples(cls, samples: ArrayLike) -> Moments:
        """The moments of `samples` over its first axis, (n, …) → fields of shape (…)."""
        values = np.asarray(samples, dtype=np.float64)
        if values.ndim == 0 or values.shape[0] == 0:
            raise ValueError(f"samples of shape {values.shape}: give at least one along axis 0")
        mean = values.mean(axis=0)
        deviation = values - mean
        square = deviation * deviation
        powers = square, square * deviation, square * square
        sums = (np.asarray(power.sum(axis=0)) for power in powers)
        return cls(values.shape[0], np.asarray(mean), *sums)

    @classmethod
    def from_central_moments(
        cls, count: int, mean: ArrayLike, variance: ArrayLike, third: ArrayLike, fourth: ArrayLike
    ) -> Moments:
        """The moments behind stored statistics: the inverse of the properties of these names.

        The variance is ignored for a single sample, where it is undefined.
        """
        mean_64, m2, m3, m4 = (np.array(x, np.float64) for x in (mean, variance, third, fourth))
        # in place: as long as memory is new, the system takes longer to give it than all the rest
        for sums, size in ((m2, count - 1), (m3, count), (m4, count)):
            sums *= size
        return cls(count, mean_64, m2 if count > 1 else np.zeros_like(mean_64), m3, m4)

    @staticmethod
    def merge(a: Moments, b: Moments) -> Moments:
        """The moments of both sets of samples, of one shape, together."""
        if a.mean.shape != b.mean.shape:
            raise ValueError(f"cannot merge moments of shapes {a.mean.shape} and {b.mean.shape}")
        n_a, n_b = float(a.count), float(b.count)
        n = n_a + n_b
        delta = b.mean - a.mean
        # Powers of delta/n keep the intermediate values in the range of the result.
        step = delta / n
        m2 = a.m2 + b.m2 + n_a * n_b * step * delta
        m3 = (
            a.m3
            + b.m3
            + n_a * n_b * (n_a - n_b) * step * step * delta
            + 3.0 * step * (n_a * b.m2 - n_b * a.m2)
        )
        m4 = (
            a.m4
            + b.m4
            + n_a * n_b * (n_a * n_a - n_a * n_b + n_b * n_b) * step**3 * delta
            + 6.0 * step**2 * (n_a * n_a * b.m2 + n_b * n_b * a.m2)
            + 4.0 * step * (n_a * b.m3 - n_b * a.m3)
        )
        return Moments(a.count + b.count, a.mean + n_b * step, m2, m3, m4)

    @property
    def variance(self) -> Float64Array:
        """Second k-statistic k₂ = m2 / (n - 1), the unbiased variance."""
        self._require(2, "an unbiased variance")
        return self.m2 / (self.count - 1)

    @property
    def third_central_moment(self) -> Float64Array:
        """Σ (x - x̄)³ / n of the samples themselves, not corrected for bias."""
        return self.m3 / self.count

    @property
    def fourth_central_moment(self) -> Float64Array:
        """Σ (x - x̄)⁴ / n of the samples themselves, not corrected for bias."""
        return self.m4 / self.count

    @property
    def k4(self) -> Float64Array:
        """Fourth k-statistic, the unbiased estimate of the fourth cumulant E(x-μ)⁴ - 3σ⁴.

        k₄ = [n (n + 1) m4 - 3 (n - 1) m2²] / ((n - 1)(n - 2)(n - 3)), with the sums m2 and m4.
        Source: Fisher, "Moments and product moments of sampling distributions", 1930.
        """
        self._require(4, "the fourth k-statistic")
        n = float(self.count)
        numerator = n * (n + 1.0) * self.m4 - 3.0 * (n - 1.0) * self.m2 * self.m2
        return numerator / ((n - 1.0) * (n - 2.0) * (n - 3.0))

    @property
    def variance_of_variance(self) -> Float64Array:
        """Unbiased estimate of Var(k₂), (2 n k₂² + (n - 1) k₄) / (n (n + 1)).

        From Var(k₂) = κ₄/n + 2κ₂²/(n - 1) and E(k₂²) = κ₂² + Var(k₂). May come out negative.
        """
        n = float(self.count)
        return (2.0 * n * self.variance**2 + (n - 1.0) * self.k4) / (n * (n + 1.0))

    def _require(self, count: int, what: str) -> None:
        if self.count < count:
            raise ValueError(f"{what} needs {count} samples or more; there are {self.count}")
