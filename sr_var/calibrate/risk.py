"""How large the share of pixels outside may be on n units, and the smallest factor that keeps it.

The interval of a pixel is mean ± λ·std, and the loss of a unit (an image, or all tiles of a
photograph) is its share of pixels outside: it lies in [0, 1] and does not grow with λ. R̂(λ) is its
mean over the n units of the calibration. Both methods take the smallest λ with R̂(λ) at most an
allowed risk, which depends on n alone:

- `conformal`: (n R̂ + 1)/(n + 1) ≤ α. Then the expected share outside of a further unit, over
  calibrations too, is at most α. Source: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal
  risk control", arXiv 2208.02814, theorem 1.
- `risk_control`: the Hoeffding–Bentkus p-value of "the expected share is above α" is at most δ.
  Then the expected share outside at this λ is at most α with probability 1 − δ over calibrations.
  Source: Bates, Angelopoulos, Lei, Malik and Jordan, "Distribution-free, risk-controlling
  prediction sets", arXiv 2101.02703, section 3.1; for images: Angelopoulos et al.,
  "Image-to-image regression with distribution-free uncertainty quantification", arXiv 2202.05265.

λ is one of `FACTORS`, which are fixed before any data are seen; both theorems hold for any such
set.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy
from scipy.stats import binom

Array = npt.NDArray[np.float64]

CONFORMAL, RISK_CONTROL = "conformal", "risk_control"
# one in a thousand apart; a λ beyond the last one means that the std has nothing to do with errors
FACTORS: Array = np.geomspace(0.01, 1000, 11514)
_ROUNDING = 1e-12
_MOST_UNITS = 1 << 16


def alpha_of(level: float) -> float:
    """1 − level, without the rounding error of the difference."""
    return round(1 - level, 12)


def allowed_risk(num_units: int, alpha: float, delta: float | None = None) -> float:
    """The largest R̂ of `num_units` units that keeps the promise; -1 if there are too few.

    Args:
        num_units: n, 1 or more.
        alpha: share of pixels that may lie outside, in (0, 1).
        delta: None for conformal risk control; else the probability with which risk control may
            fail, in (0, 1).
    """
    if delta is None:
        allowed = alpha - (1 - alpha) / num_units
        if abs(allowed) < _ROUNDING:
            return 0.0
        return allowed if allowed > 0 else -1.0
    if p_value(0.0, num_units, alpha) > delta:
        return -1.0
    low, high = 0.0, alpha
    while high - low > _ROUNDING:
        middle = (low + high) / 2
        if p_value(middle, num_units, alpha) <= delta:
            low = middle
        else:
            high = middle
    return low


def p_value(risk: npt.ArrayLike, num_units: npt.ArrayLike, alpha: float) -> Array:
    """Hoeffding–Bentkus p-value of "the expected loss is above α" at a mean loss of `risk`.

    min(exp(−n h(min(R̂, α), α)), e·P(Bin(n, α) ≤ ⌈n R̂⌉)), h(a, b) = a ln(a/b) + (1 − a) ln((1 −
    a)/(1 − b)). It does not fall as `risk` grows. Source: Bates et al. 2021 (arXiv 2101.02703),
    section 3.1.
    """
    r, n = np.asarray(risk, np.float64), np.asarray(num_units, np.float64)
    a = np.minimum(r, alpha)
    divergence = xlogy(a, a / alpha) + xlogy(1 - a, (1 - a) / (1 - alpha))
    # R̂ is a sum of shares: rounding must not make 4 of ⌈3.0000000001⌉
    bentkus = math.e * binom.cdf(np.ceil(n * (r - _ROUNDING)), n, alpha)
    return np.asarray(np.minimum(np.exp(-n * divergence), bentkus), np.float64)


def fewest_units(alpha: float, delta: float | None = None, risk: float = 0.0) -> int:
    """The fewest units with which a mean loss of `risk`, below α, is allowed.

    Raises:
        ValueError: it takes more than 2^16.
    """
    if delta is None:
        return math.ceil((1 - alpha) / (alpha - risk) - 1e-9)
    if risk == 0:
        return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)
    is_enough = p_value(risk, np.arange(1, _MOST_UNITS), alpha) <= delta
    if not is_enough.any():
        raise ValueError(f"a risk of {risk:g} is too near to {alpha:g}: it takes too many units")
    return int(np.argmax(is_enough)) + 1


def share_outside(scores: npt.NDArray[np.floating]) -> Array:
    """The share of scores |y − m|/std above each of `FACTORS`, (K,); it falls and never grows."""
    place = np.searchsorted(FACTORS, scores.ravel(), side="left")
    counts = np.bincount(place, minlength=len(FACTORS) + 1)
    # those that first lie inside at a later factor; sums of integers, so that 0 is 0
    outside = counts[::-1].cumsum()[::-1][1:]
    return np.asarray(outside / place.size, np.float64)


def smallest_factor(risk: Array, allowed: float) -> float | None:
    """The smallest of `FACTORS` whose risk, (K,) and falling, is at most `allowed`.

    None if that of the largest one is above it.
    """
    is_kept = risk <= allowed
    return float(FACTORS[np.argmax(is_kept)]) if is_kept[-1] else None


def risk_at(risk: Array, factor: float) -> float:
    """R̂ at any factor: that of the largest of `FACTORS` that is not above it; 1 below all."""
    place = int(np.searchsorted(FACTORS, factor, side="right")) - 1
    return float(risk[place]) if place >= 0 else 1.0
