"""What exact nets and n exact samples show of the calibration metrics where the law is known.

The law of a pixel is taken for the two normal laws of one variance that have its mean, variance,
third and fourth central moment. Such is the oracle's (docs/oracle.md), and then it is exact.
docs/theory.md, eq. 34. Of an image at most 8192 pixels are used, drawn at random, so that the
samples that are drawn of them cost the same for every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from scipy.special import ndtr

from sr_var.results.moments import Array, Truth
from sr_var.verify.numbers.calibration import (
    COVERAGES,
    NUM_BINS,
    Curves,
    Histograms,
    calibrate,
    curves,
    place_of_std,
)
from sr_var.verify.numbers.ranks import NUM_PIT_BINS, pit_bins
from sr_var.verify.numbers.reference import REFERENCED, mean_abs_of_normal, metrics_of_order
from utils.metrics import VARIANCE_FLOOR
from utils.seeds import stable_seed

Metrics: TypeAlias = dict[str, float]
_NUM_PIXELS, _AT_A_TIME = 8192, 50
# κ₃ and κ₄, over powers of the std, below which a law counts as normal: rounding, in float64
_SMALLEST_CUMULANT = 1e-7
# of an asymmetry t = (1 − 2p)²; where it is small, κ₃ is too small to tell the distance
_SYMMETRIC = 1 / 6
_NUM_IN_TABLE = 20_000
_Z90 = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True)
class Mixture:
    """Two normal laws of variance τ² about the mean of both: p N(upper, τ²), 1 − p N(lower, τ²)."""

    share: Array
    upper: Array
    lower: Array
    noise_std: Array

    @classmethod
    def of(cls, truth: Truth) -> Mixture:
        """The mixture that has these moments; a law that no mixture is like comes out without τ.

        With d the distance of the two, w = p(1 − p) and t = (1 − 2p)²: κ₃ = w(1 − 2p)d³,
        κ₄ = w(1 − 6w)d⁴, and κ₄/|κ₃|^{4/3} = (3t − 1)/(2(1 − t)t²)^{1/3} grows with t.
        """
        v = np.maximum(truth.variance, 1e-12)
        third, fourth = truth.third / v**1.5, truth.fourth / v**2 - 3
        is_normal = np.maximum(np.abs(third), np.abs(fourth)) < _SMALLEST_CUMULANT
        of_table, t_table = _asymmetries()
        with np.errstate(divide="ignore", over="ignore"):
            scaled = np.arcsinh(fourth / np.maximum(np.abs(third), 1e-100) ** (4 / 3))
        t = np.interp(scaled, of_table, t_table)
        w = (1 - t) / 4
        by_fourth = (np.abs(fourth) / (w * np.abs(3 * t - 1) / 2 + 1e-300)) ** 0.25
        by_third = (np.abs(third) / (w * np.sqrt(t) + 1e-300)) ** (1 / 3)
        d = np.where(is_normal, 0.0, np.where(t < _SYMMETRIC, by_fourth, by_third))
        noise = np.sqrt(np.maximum(1 - w * d * d, 0))
        share, std = (1 - np.copysign(np.sqrt(t), third)) / 2, np.sqrt(v)
        return cls(share, (1 - share) * d * std, -share * d * std, noise * std)

    def sample(self, rng: np.random.Generator, *shape: int) -> Array:
        """Deviations from the mean, (*shape, pixels)."""
        size = (*shape, *self.share.shape)
        centre = np.where(rng.random(size) < self.share, self.upper, self.lower)
        return np.asarray(centre + self.noise_std * rng.standard_normal(size))

    def expected_of_normal(self, variance: Array) -> Metrics:
        """What N(μ, v) shows where this is the law: metrics of `calibration.calibrate`."""
        std, noise = np.sqrt(variance), np.maximum(self.noise_std, 1e-9)
        parts = ((self.share, self.upper), (1 - self.share, self.lower))

        def within(bound: Array) -> Array:
            shares = (
                p * (ndtr((bound - c) / noise) - ndtr((-bound - c) / noise)) for p, c in parts
            )
            return np.asarray(sum(shares))

        bound, spread = _Z90 * std, np.sqrt(noise**2 + variance)
        beyond = sum(p * (_above(c - bound, noise) + _above(-c - bound, noise)) for p, c in parts)
        score = sum(p * mean_abs_of_normal(c, spread) for p, c in parts) - std / math.sqrt(math.pi)
        z2 = sum(p * (c**2 + noise**2) for p, c in parts) / variance
        return {
            "z2": float(np.mean(z2)),
            "nll": float(np.mean(0.5 * (np.log(2 * np.pi * variance) + z2))),
            "crps": float(np.mean(score)),
            **{
                f"coverage_{p}": float(within(NormalDist().inv_cdf(0.5 + p / 200) * std).mean())
                for p in COVERAGES
            },
            "interval_score_90": float(np.mean(2 * bound + 20 * beyond)),
        }


@dataclass
class Expected:
    """One route on one image, or on several: means by image, and sums over all pixels.

    Attributes:
        means: metric → values, one an image.
        sums: the histograms of one draw of y; `square` and `fourth` are the expectations over y of
            Σ (y − m)² and Σ (y − m)⁴ by predicted std, (4096,).
        pit: the shares of the 20 bins of the PIT, over images.
    """

    means: dict[str, list[float]]
    sums: Histograms
    square: Array
    fourth: Array
    pit: Array

    def add(self, other: Expected) -> None:
        """Take in more images."""
        for name, values in other.means.items():
            self.means[name] = self.means[name] + values
        self.sums.add(other.sums)
        self.square = self.square + other.square
        self.fourth = self.fourth + other.fourth
        self.pit = self.pit + other.pit

    def metrics(self) -> tuple[Metrics, Curves]:
        """What all images together would show, with their curves."""
        means = {name: float(np.mean(values)) for name, values in self.means.items()}
        exact = Histograms(self.sums.count, self.sums.variance, self.square)
        of_order = metrics_of_order(self.sums, exact, self.fourth)
        return {**means, **of_order}, curves(self.sums)


def expected_of_image(name: str, truth: Truth, num_samples: int, seed: int) -> dict[str, Expected]:
    """Nets that say μ and v, and n exact samples, by route; y and the samples are drawn.

    `seed` and the name choose the pixels and the draws.
    """
    rng = np.random.default_rng(stable_seed(seed, "known law", name))
    num = min(_NUM_PIXELS, truth.mean.size)
    places = rng.permutation(truth.mean.size)[:num]
    part = Truth(*(values.ravel()[places] for values in vars(truth).values()))
    weight = truth.mean.size / num
    law, floored = Mixture.of(part), np.maximum(part.variance, VARIANCE_FLOOR)
    y = law.sample(rng)
    nets = _expected(part, y, np.zeros(num), floored, weight)
    nets.means = {key: [value] for key, value in law.expected_of_normal(floored).items()}
    total, squares = np.zeros(num), np.zeros(num)
    for start in range(0, num_samples, _AT_A_TIME):
        drawn = law.sample(rng, min(_AT_A_TIME, num_samples - start))
        total += drawn.sum(axis=0)
        squares += (drawn * drawn).sum(axis=0)
    mean = total / num_samples
    k2 = (squares - num_samples * mean * mean) / (num_samples - 1)
    predicted = np.maximum(k2 * (1 + 1 / num_samples), VARIANCE_FLOOR)
    return {"nets": nets, "samples": _expected(part, y, mean, predicted, weight)}


def _expected(truth: Truth, y: Array, mean: Array, variance: Array, weight: float) -> Expected:
    """Of N(mean, variance); `mean` and `y` are deviations from μ, each pixel counts `weight`."""
    means, sums = calibrate(y, mean, variance)
    for name, values in vars(sums).items():
        setattr(sums, name, values * weight)
    place = place_of_std(np.sqrt(variance))
    square = truth.variance + mean**2
    fourth = truth.fourth - 4 * mean * truth.third + 6 * mean**2 * truth.variance + mean**4
    of_square, of_fourth = (
        np.asarray(weight * np.bincount(place, values, minlength=NUM_BINS), np.float64)
        for values in (square, fourth)
    )
    pit = np.bincount(pit_bins((y - mean) / np.sqrt(variance)), minlength=NUM_PIT_BINS) / y.size
    kept = {name: [means[name]] for name in REFERENCED}
    return Expected(kept, sums, of_square, of_fourth, pit)


@lru_cache(maxsize=1)
def _asymmetries() -> tuple[Array, Array]:
    """arcsinh κ₄/|κ₃|^{4/3}, increasing, and the t that it belongs to."""
    near = np.geomspace(1e-14, 1e-3, _NUM_IN_TABLE // 4)
    t = np.concatenate([near, np.linspace(1e-3, 1 - 1e-3, _NUM_IN_TABLE)[1:-1], 1 - near[::-1]])
    return np.arcsinh((3 * t - 1) / np.cbrt(2 * (1 - t) * t * t)), t


def _above(mean: Array, std: Array) -> Array:
    """E max(N(mean, std²), 0)."""
    return np.asarray(0.5 * (mean + mean_abs_of_normal(mean, std)))
