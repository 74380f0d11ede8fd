"""Where the real value falls in the predicted law: PIT and rank histograms, and the fair CRPS.

The PIT of a pixel is F(y), F the distribution function of N(m, v); of an exact law it is uniform.
The rank is the number of samples below y, ties broken at random: uniform for an exact sampler of
any law. Ranks need the samples themselves: the first 19 pictures, where they are there, so that
their cost does not grow with the number of samples. docs/theory.md, eq. 48 and 49.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr

from sr_var.results.moments import Array

NUM_PIT_BINS = 20
Places = npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]


def pit_bins(z: Array) -> Places:
    """The bin of Φ(z), 0 to 19, of (y − m)/√v with its sign."""
    place = (ndtr(z) * NUM_PIT_BINS).astype(np.int64)
    return np.asarray(np.minimum(place, NUM_PIT_BINS - 1))


def expected_pit(num_samples: int | None) -> Array:
    """Shares of the 20 bins for a normal law: of the law, or of n samples of it (Student's t)."""
    levels = np.arange(NUM_PIT_BINS + 1) / NUM_PIT_BINS
    if num_samples is None:
        return np.diff(levels)
    inner = stdtr(num_samples - 1, ndtri(levels[1:-1]))
    return np.diff(np.concatenate([[0.0], inner, [1.0]]))


def ranks(members_uint8: Pictures, y_uint8: Pictures, rng: np.random.Generator) -> Places:
    """The rank of every pixel of y among k samples, 0 to k, (k, …) and (…) → (…)."""
    below = np.zeros(y_uint8.shape, np.int64)
    equal = np.zeros(y_uint8.shape, np.int64)
    for member in members_uint8:
        below += member < y_uint8
        equal += member == y_uint8
    return np.asarray(below + (rng.random(y_uint8.shape) * (equal + 1)).astype(np.int64))


def fair_crps(members: npt.NDArray[np.generic], y: Array) -> Array:
    """CRPS of the law that k samples are drawn from, unbiased for any k ≥ 2; in their unit.

    Σ|x_i − y|/k − Σ_{i<j}|x_i − x_j|/(k(k − 1)). Source: Ferro, "Fair scores for ensemble
    forecasts", 2014. (k, …) and (…) → (…).
    """
    k = len(members)
    if k < 2:
        raise ValueError(f"a fair score needs 2 samples or more, got {k}")
    is_whole = members.dtype == np.uint8
    values = members.astype(np.int16) if is_whole else np.asarray(members, np.float64)
    apart = np.zeros(y.shape, np.int32 if is_whole else np.float64)
    for i, j in combinations(range(k), 2):
        apart += np.abs(values[i] - values[j])
    error = np.zeros(y.shape)
    for value in values:
        error += np.abs(value - y)
    return np.asarray(error / k - apart / (k * (k - 1)))
