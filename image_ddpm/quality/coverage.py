"""Precision and recall of a set of features, and the inception score; mathematics on arrays only.

A Fréchet distance mixes two faults: images that are not like real ones, and real ones that never
come out. Precision and recall tell them apart; docs/quality.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from image_ddpm.quality.distances import feature_matrix

Float64Array = NDArray[np.float64]

# of squared distances at a time, in rows of vectors
_ROWS = 512
# of the squared norms: what subtracting them leaves of a distance that is 0
_ROUNDING = 1e-12
_LARGEST_ERROR = 1e-3


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1; see `precision_and_recall`."""

    precision: float
    recall: float


class InceptionScore(NamedTuple):
    """A score from 1 to the number of classes, and its standard error; see `inception_score`."""

    score: float
    standard_error: float


def precision_and_recall(
    reference: ArrayLike,
    samples: ArrayLike,
    neighbours: int = 3,
    after_rows: Callable[[int], None] = lambda _: None,
) -> PrecisionRecall:
    """Share of samples within the reference's manifold, and of the reference within theirs.

    A set's manifold is all balls about its vectors that reach to their k-th nearest other vector.
    Source: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative
    models", 2019, eq. 1 and 2, with k = 3 as there. `after_rows` is called with the number of
    vectors whose distances have been computed, of 2 (N + M) in all; it may raise to end early.

    Args:
        reference: features (N, D), N > k.
        samples: features (M, D), M > k.

    Raises:
        ValueError: other shapes, values that are not finite, or too few vectors.
    """
    x, y = feature_matrix(reference), feature_matrix(samples)
    if x.shape[1] != y.shape[1] or not 0 < neighbours < min(len(x), len(y)):
        raise ValueError(
            f"features of shapes {x.shape} and {y.shape}: need one D, and more than the "
            f"{neighbours} nearest in each"
        )
    centre = x.mean(axis=0)  # large means would cost digits of the differences
    x, y = x - centre, y - centre
    of_reference, of_samples = (_radii(z, neighbours, after_rows) for z in (x, y))
    return PrecisionRecall(
        precision=_share_within(y, x, of_reference, after_rows),
        recall=_share_within(x, y, of_samples, after_rows),
    )


def inception_score(probabilities: ArrayLike) -> InceptionScore:
    """exp of the mean divergence of p(class | image) from its mean over images, of (N, K) rows.

        exp( ⟨ Σ_k p_ik ln(p_ik / p̄_k) ⟩_i ),   p̄ = ⟨p_i⟩

    1: all images look alike to the classifier; K: it is sure of each, and all classes are there. It
    sees no real image. The standard error is that of the mean of the divergences, times the score:
    to first order in 1/N the mean p̄ adds nothing, as the derivative by it is 0. With N not far
    above K the score is low, by (K − 1)/2N of itself. Source: Salimans et al., "Improved techniques
    for training GANs", 2016, section 4.

    Raises:
        ValueError: another shape, fewer than 2 rows, negative values, or rows that do not sum to 1.
    """
    rows = feature_matrix(probabilities)
    if len(rows) < 2 or rows.shape[1] < 2:
        raise ValueError(f"probabilities of shape {rows.shape}: need 2 or more of 2 classes")
    if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > _LARGEST_ERROR:
        raise ValueError("probabilities must be 0 or more, and each row must sum to 1")
    rows = rows / rows.sum(axis=1, keepdims=True)
    mean = rows.mean(axis=0)
    is_there = rows > 0
    ratio = np.divide(rows, mean, out=np.ones_like(rows), where=is_there)
    divergence = (rows * np.log(ratio)).sum(axis=1)
    score = math.exp(float(divergence.mean()))
    error = float(divergence.std(ddof=1)) / math.sqrt(len(rows))
    return InceptionScore(score, score * error)


def _radii(x: Float64Array, neighbours: int, after_rows: Callable[[int], None]) -> Float64Array:
    """Squared distance of each vector to its k-th nearest other one, (N,)."""
    found = np.empty(len(x))
    for start in range(0, len(x), _ROWS):
        square = _square_distances(x[start : start + _ROWS], x)
        rows = np.arange(len(square))
        square[rows, start + rows] = -1.0  # itself comes first
        found[start : start + _ROWS] = np.partition(square, neighbours, axis=1)[:, neighbours]
        after_rows(len(square))
    return found


def _share_within(
    x: Float64Array, y: Float64Array, radii: Float64Array, after_rows: Callable[[int], None]
) -> float:
    """Share of the vectors x (N, D) that lie in a ball about one of y (M, D)."""
    count, norms = 0, (y * y).sum(axis=1)
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        slack = _ROUNDING * ((part * part).sum(axis=1)[:, None] + norms)
        count += int((_square_distances(part, y) <= radii + slack).any(axis=1).sum())
        after_rows(len(part))
    return count / len(x)


def _square_distances(x: Float64Array, y: Float64Array) -> Float64Array:
    """‖x_i − y_j‖², (N, M)."""
    norms = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
    found: Float64Array = np.maximum(norms - 2.0 * (x @ y.T), 0.0)
    return found
