"""Precision, recall and the inception score against direct formulas and known values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import entropy

from image_ddpm.quality.coverage import inception_score, precision_and_recall

Array = NDArray[np.float64]


def _directly(reference: Array, samples: Array, k: int) -> tuple[float, float]:
    """The formulas of the paper, written out over all pairs."""

    def share_within(x: Array, y: Array) -> float:
        radius = np.sort(cdist(y, y), axis=1)[:, k]
        return float(np.mean([(row <= radius).any() for row in cdist(x, y)]))

    return share_within(samples, reference), share_within(reference, samples)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sizes", [(40, 30), (700, 900)], ids=["one part", "several parts"])
def test_shares_are_those_of_all_pairs(k: int, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(k)
    reference = rng.standard_normal((sizes[0], 4)) + 1000.0
    samples = 1.3 * rng.standard_normal((sizes[1], 4)) + 1000.5
    found = precision_and_recall(reference, samples, k)
    assert found == pytest.approx(_directly(reference, samples, k), abs=1e-12)
    assert 0 < min(found) < 1


def test_equal_sets_share_all_and_sets_apart_share_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((50, 6)) * 1e3 + 1e4
    assert precision_and_recall(x, x) == (1.0, 1.0)
    assert precision_and_recall(x, x + 1e6) == (0.0, 0.0)
    twice = np.repeat(x[:10], 5, axis=0)  # radii of 0
    assert precision_and_recall(twice, twice) == (1.0, 1.0)


def test_a_mode_that_is_missing_costs_recall_alone() -> None:
    rng = np.random.default_rng(1)
    modes = rng.standard_normal((400, 2)) + 100.0 * np.repeat([[0.0], [1.0]], 200, axis=0)
    samples = rng.standard_normal((300, 2))
    found = precision_and_recall(modes, samples)
    assert found.precision > 0.95 and 0.45 < found.recall <= 0.5


def test_progress_is_told_of_every_vector() -> None:
    x, told = np.random.default_rng(2).standard_normal((600, 3)), list[int]()
    precision_and_recall(x, x[:520], after_rows=told.append)
    assert sum(told) == 2 * (600 + 520)


@pytest.mark.parametrize(
    ("reference", "samples"),
    [((5, 2), (5, 3)), ((3, 2), (9, 2)), ((9, 2), (3, 2)), ((9,), (9, 2))],
)
def test_other_shapes_and_too_few_vectors_are_refused(
    reference: tuple[int, ...], samples: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="shape"):
        precision_and_recall(np.zeros(reference), np.zeros(samples))


def test_score_is_one_of_like_images_and_the_number_of_sure_classes() -> None:
    like = np.tile([0.2, 0.3, 0.5], (20, 1))
    assert inception_score(like) == pytest.approx((1.0, 0.0), abs=1e-12)
    sure = np.eye(7)[np.arange(70) % 7]
    assert inception_score(sure) == pytest.approx((7.0, 0.0), abs=1e-9)


def test_score_is_that_of_the_direct_formula() -> None:
    rows = np.random.default_rng(3).dirichlet(np.full(9, 0.2), 500)
    direct = np.exp(np.mean([entropy(row, rows.mean(axis=0)) for row in rows]))
    assert inception_score(rows).score == pytest.approx(direct, rel=1e-12)


def test_standard_error_is_the_spread_over_sets() -> None:
    """400 sets: their std is known to 3.5 %, so 15 % is four times that."""
    rng = np.random.default_rng(4)
    found = [inception_score(rng.dirichlet(np.full(5, 0.3), 800)) for _ in range(400)]
    spread = np.std([score for score, _ in found], ddof=1)
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.6], [0.5, 0.5]], [[-0.1, 1.1], [0.5, 0.5]], [[0.5, 0.5]], [[1.0], [1.0]]]
)
def test_what_are_no_probabilities_is_refused(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        inception_score(rows)
