"""Confidence intervals over what is independent: images, or all tiles of a photograph together.

Pixels of an image are not independent, nor are tiles of a photograph, so a whole unit is left out
at a time (the jackknife). It works on means over the pixels of each image, so that it costs a few
additions; or, for metrics that need the order of all pixels, on the sums of histograms as the
images pass by. `benchmarks.inference` measures how often the intervals hold, and from how many
units on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy import stats

from sr_var.calibrate.units import group, settled_kind
from sr_var.verify.numbers.calibration import Array, Histograms
from utils.images.listing import Entry

# from so many units on, 95 % intervals cover 93 to 97 % (docs/verification.md)
MIN_UNITS = 100
CLASS = "class"
# sums of histograms that are kept beside those of all images
_MAX_PARTS = 64
# of a value on a logarithmic scale
_LEAST_ERRORS = 8.0


class ClustersSection(TypedDict):
    """Section `clusters` of `results.json`: what is independent, and how much of it there is."""

    kind: str
    count: int
    needed: int
    text: str


@dataclass(frozen=True)
class Clusters:
    """Which images belong together.

    Attributes:
        kind: what a unit is: image, photograph, class or folder.
        of: number of the unit of each image, (num_images,), from 0 to count − 1.
    """

    kind: str
    of: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """Units."""
        return int(self.of.max()) + 1

    @property
    def needed(self) -> int:
        """Units from which on intervals hold their level."""
        return MIN_UNITS

    @property
    def is_enough(self) -> bool:
        """Whether intervals hold their level."""
        return self.count >= self.needed

    @property
    def noun(self) -> str:
        """The kind in the plural."""
        return plural(self.kind)

    def section(self) -> ClustersSection:
        """What `results.json` says of it."""
        text = f"The 95 % intervals are over {self.count} {self.noun}."
        if not self.is_enough:
            text = f"95 % intervals take {self.needed} {self.noun}; here are {self.count}."
        return {"kind": self.kind, "count": self.count, "needed": self.needed, "text": text}


def plural(kind: str) -> str:
    """`images`, `photographs`, `classes` or `folders`."""
    return "classes" if kind == CLASS else f"{kind}s"


def every_one(num_units: int, kind: str) -> Clusters:
    """Clusters of one row each."""
    return Clusters(kind, np.arange(num_units))


def clusters_of(entries: Sequence[Entry], kind: str) -> Clusters:
    """Which images are one unit: by `--cluster`, their names and, for `class`, the info dict.

    Raises:
        DataError: `photograph`, and no name ends in a number.
    """
    if kind == CLASS:
        numbers = {name: i for i, name in enumerate(dict.fromkeys(e.group for e in entries))}
        return Clusters(kind, np.array([numbers[entry.group] for entry in entries]))
    names = [entry.name for entry in entries]
    kind = settled_kind(kind, names)
    units = enumerate(group(names, kind).values())
    number_of = {name: number for number, unit in units for name in unit}
    return Clusters(kind, np.array([number_of[name] for name in names]))


def leave_one_out(
    rows: Mapping[str, Array],
    metrics_of: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    clusters: Clusters,
) -> dict[str, Array]:
    """Every metric of all images without those of a unit, (num_units,), for each unit in turn.

    `rows`: name → one mean over pixels per image, (num_images,); images count alike. `metrics_of`
    makes metrics of means, entry by entry.
    """
    names = list(rows)
    table = np.stack([rows[name] for name in names], axis=1)  # (num_images, num_names)
    sums = np.zeros((clusters.count, len(names)))
    np.add.at(sums, clusters.of, table)
    num_left = len(table) - np.bincount(clusters.of)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, of the psnr of equal images
        means = (sums.sum(axis=0) - sums) / num_left[:, None]
    found = metrics_of({name: means[:, i] for i, name in enumerate(names)})
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def jackknife_interval(value: float, left_out: Array, coverage: float) -> list[float] | None:
    """The metric ± Student's t times its jackknife standard error; None where not finite.

    Source: Tukey, "Bias and confidence in not-quite large samples", 1958; Efron and Tibshirani, "An
    introduction to the bootstrap", 1993, eq. 11.5. Of a plain mean it is the interval of Student.

    Args:
        value: the metric of all units.
        left_out: the same without each unit, (num_units,).
        coverage: of the interval, as 0.95.
    """
    error = jackknife_error(value, left_out)
    if error is None:
        return None
    half = _quantile(coverage, len(left_out) - 1) * error
    return [value - half, value + half]


def interval_of_square(value: float, left_out: Array, coverage: float) -> list[float] | None:
    """The interval of a squared error less its noise: `jackknife_interval` of log(value + κ).

    κ ≥ 0 makes value + κ at least eight standard errors. So it is nearly Student's interval where
    noise decides, and reaches further up where errors do, which a few images make most of; there
    Student's is too low (docs/verification.md).
    """
    error = jackknife_error(value, left_out)
    if not error:
        return jackknife_interval(value, left_out, coverage)
    shift = max(_LEAST_ERRORS * error - value, 0.0)
    half = _quantile(coverage, len(left_out) - 1) * error / (value + shift)
    return [(value + shift) * math.exp(sign * half) - shift for sign in (-1, 1)]


def jackknife_error(value: float, left_out: Array) -> float | None:
    """The standard error of a metric of all units by what it is without each; None: not known."""
    num = len(left_out)
    if num < 2 or not math.isfinite(value) or not np.isfinite(left_out).all():
        return None
    return math.sqrt((num - 1) * float(left_out.var()))


@lru_cache(maxsize=64)
def _quantile(coverage: float, num_degrees: int) -> float:
    """Half of the central interval of Student's t."""
    return float(stats.t.ppf(0.5 + coverage / 2, num_degrees))


class HistogramParts:
    """Sums of histograms without a few units each, of at most 64 groups of units.

    So their size does not grow with the number of images. Nothing is kept where there are too few
    units for an interval.
    """

    def __init__(self, clusters: Clusters) -> None:
        num_a_part = math.ceil(clusters.count / _MAX_PARTS)
        self._num_parts = math.ceil(clusters.count / num_a_part)
        self._clusters, self._num_added = clusters, 0
        self._parts: dict[str, list[Histograms]] = {}

    def add(self, by_route: Mapping[str, Histograms]) -> None:
        """Take in one image, in the order of the clusters."""
        part = int(self._clusters.of[self._num_added]) % self._num_parts
        self._num_added += 1
        if not self._clusters.is_enough:
            return
        for route, histograms in by_route.items():
            parts = self._parts.setdefault(route, [Histograms() for _ in range(self._num_parts)])
            parts[part].add(histograms)

    def left_out(
        self, route: str, total: Histograms, metric: Callable[[Histograms], float]
    ) -> Array:
        """The metric without each group of units, (num_groups,)."""
        return np.array([metric(total.without(part)) for part in self._parts[route]])
