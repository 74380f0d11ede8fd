"""Sums of powers of bytes are whole numbers, exact at the ends of the range and across strips."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

import utils.images.pixels
from utils.images.pixels import PowerSums
from utils.metrics import Moments

FIELDS = ("mean", "m2", "m3", "m4")
SHAPE = (7, 5, 3)


def _pictures(n: int, std: float, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    rng = np.random.default_rng(n)
    values = rng.uniform(30, 220, shape) + std * rng.standard_normal((n, *shape))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _sums(pictures: NDArray[np.uint8], pivot: NDArray[np.uint8] | None = None) -> PowerSums:
    sums = PowerSums(pictures[0] if pivot is None else pivot)
    sums.add(list(pictures))
    return sums


def _assert_close(found: Moments, expected: Moments) -> None:
    assert found.count == expected.count
    for name in FIELDS:
        values = getattr(expected, name)
        scale = np.abs(values).max()
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("std", [0.4, 3.0, 90.0])
def test_moments_are_those_of_the_bytes(std: float) -> None:
    pictures = _pictures(50, std)
    sums = PowerSums(pictures[0])
    for part in (pictures[:7], pictures[7:7], pictures[7:]):
        sums.add(list(part))
    _assert_close(sums.moments(), Moments.from_samples(pictures))
    np.testing.assert_allclose(sums.moments().variance, pictures.var(axis=0, ddof=1), rtol=1e-10)


def test_moments_are_right_to_the_last_bits_where_floats_cancel() -> None:
    """Against fractions: half of the samples at each end of the range, an odd one between."""
    values = [0] * 20 + [255] * 20 + [1]
    moments = _sums(np.array(values, np.uint8).reshape(-1, 1, 1)).moments()
    mean = Fraction(sum(values), len(values))
    exact = [mean, *(sum((x - mean) ** k for x in values) for k in (2, 3, 4))]
    found = [getattr(moments, name).item() for name in FIELDS]
    assert found == pytest.approx([float(value) for value in exact], rel=1e-12)


@pytest.mark.parametrize("level", [0, 255])
def test_sums_do_not_overflow_at_the_ends_of_the_range(level: int) -> None:
    """A thousand fourth powers of 128 are far beyond 32 bits."""
    pictures = np.full((1000, 1, 2), level, np.uint8)
    pivot = np.full((1, 2), 255 - level, np.uint8)
    moments = _sums(pictures, pivot).moments()
    assert np.all(moments.mean == level)
    assert not (moments.m2.any() or moments.m3.any() or moments.m4.any())


def test_pivot_changes_nothing_but_rounding() -> None:
    pictures = _pictures(20, 40.0)
    far = np.full(SHAPE, 255, np.uint8)
    _assert_close(_sums(pictures, far).moments(), _sums(pictures).moments())


@pytest.mark.parametrize("strip", [1, 13, 105, 1000])
def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    pictures = _pictures(9, 20.0)
    expected = _sums(pictures)
    monkeypatch.setattr(utils.images.pixels, "_STRIP", strip)
    found = _sums(pictures)
    for name in FIELDS:
        np.testing.assert_array_equal(
            getattr(found.moments(), name), getattr(expected.moments(), name)
        )
