"""The figures by group: by predicted std, near the ends of the range, by frequency, by class.

Of an image, sums by group are left that add up over images. Groups are made of what is predicted,
never of y: among pixels chosen by their error even an exact law looks wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from sr_var.results.moments import Array
from sr_var.verify.numbers.calibration import (
    NUM_BINS,
    calibrate,
    crps_of_normal,
    place_of_std,
    up_to,
)
from sr_var.verify.numbers.ranks import (
    NUM_PIT_BINS,
    Places,
    expected_pit,
    fair_crps,
    pit_bins,
    ranks,
)
from sr_var.verify.numbers.reference import REFERENCED
from sr_var.verify.numbers.spectrum import band_power, power_of_samples
from sr_var.verify.read.images import ImageData, judged
from utils.metrics import VARIANCE_FLOOR, WHITE
from utils.seeds import stable_seed

Sums = dict[str, Array]
Section = dict[str, Any]
# bins of a predicted std, 11 % each, and the groups of equal count that they are put together to
_NUM_STDS, _NUM_GROUPS = 64, 5
# samples that take the place of y, and pixels of an image that they do it on
_NUM_LEFT_OUT, _NUM_PIXELS = 4, 16384
_Z90 = NormalDist().inv_cdf(0.95)
_SCORES = ("z2", "nll", "crps", "coverage_90")
_RANGES = ("inside the range", "within 2 std of its ends")


class Breakdown:
    """Adds up the sums of images; what not all of them have is left out."""

    def __init__(self) -> None:
        self._sums: Sums = {}
        self._counts: dict[str, int] = {}
        self._num_images = 0

    def add(self, sums: Mapping[str, Array]) -> None:
        """Take in one image."""
        self._num_images += 1
        for name, values in sums.items():
            self._sums[name] = self._sums[name] + values if name in self._sums else values
            self._counts[name] = self._counts.get(name, 0) + 1

    def sections(self, num_samples: int, known_pit: Mapping[str, Array]) -> Section:
        """Sections `pit`, `ranks` and `groups` of `results.json`; see docs/file_formats.md."""
        sums = {n: v for n, v in self._sums.items() if self._counts[n] == self._num_images}
        routes = [route for route in ("nets", "samples") if f"{route}.std.count" in sums]
        found: Section = {"pit": {}, "groups": {"std": {}, "range": {}}}
        for route in routes:
            by_std = _equal_counts(sums, f"{route}.std.")
            expected = expected_pit(num_samples if route == "samples" else None)
            found["pit"][route] = _shape(by_std, known_pit.get(route, expected))
            found["groups"]["std"][route] = _rows(by_std)
            found["groups"]["range"][route] = [
                {"label": label, **row}
                for label, row in zip(_RANGES, _rows(_of(sums, f"{route}.range.")), strict=True)
            ]
        if "sampler_law" in sums:
            means = sums["sampler_law"] / self._num_images
            found["sampler_law"] = dict(zip(REFERENCED, map(float, means), strict=True))
        if "rank.count" in sums:
            by_std, num = _equal_counts(sums, "rank."), sums["rank.histogram"].shape[1]
            found["ranks"] = {
                "num_members": num - 1,
                "fair_crps": float(sums["rank.crps"].sum() / sums["rank.count"].sum()),
                **_shape(by_std, np.full(num, 1 / num)),
            }
        power = {
            name.removeprefix("power."): [float(f"{x:.5g}") for x in values / self._num_images]
            for name, values in sums.items()
            if name.startswith("power.")
        }
        found["groups"]["frequency"] = power
        return found


def image_sums(name: str, data: ImageData, seed: int) -> Sums:
    """What one image adds; `seed` and the name break ties of ranks."""
    routes = {"nets": (data.mean, data.variance)}
    if data.samples is not None:
        n = data.samples.count
        routes["samples"] = data.samples.mean, data.samples.variance * (1 + 1 / n)
    sums: Sums = {}
    for route, (mean, variance) in routes.items():
        law = (judged(values, data.hidden) for values in (data.high_res, mean, variance))
        sums |= _of_route(route, *law)
        sums[f"power.{route}_error"] = band_power(data.high_res - mean)
    if data.samples is not None:
        sums["power.difference"] = band_power(data.mean - data.samples.mean)
    if data.truth is not None:
        sums["power.nets_true_error"] = band_power(data.mean - data.truth.mean)
    if data.samples is not None and data.members is not None:
        sums |= _of_members(name, data, np.sqrt(routes["samples"][1]), seed)
        count = data.samples.count
        if count > 3:
            sums["sampler_law"] = _law_of_sampler(name, data, seed)
        sums["power.samples_spread"] = power_of_samples(data.members, data.samples.mean, count)
    return sums


def _of_route(route: str, high_res: Array, mean: Array, variance: Array) -> Sums:
    v = np.maximum(variance, VARIANCE_FLOOR)
    std, error = np.sqrt(v), high_res - mean
    z = error / std
    square = z * z
    values = {
        "variance": v,
        "square": error * error,
        "z2": square,
        "nll": 0.5 * (np.log(2 * np.pi * v) + square),
        "crps": crps_of_normal(error, std),
        "coverage_90": (np.abs(z) <= _Z90).astype(np.float64),
    }
    by_std = place_of_std(std) // (NUM_BINS // _NUM_STDS)
    is_near = (mean - 2 * std < 0) | (mean + 2 * std > WHITE)
    sums: Sums = {}
    for kind, place, num in (("std", by_std, _NUM_STDS), ("range", is_near.astype(np.int64), 2)):
        sums[f"{route}.{kind}.count"] = _summed(place, num)
        for name, of_pixel in values.items():
            sums[f"{route}.{kind}.{name}"] = _summed(place, num, of_pixel)
    sums[f"{route}.std.histogram"] = _histogram(by_std, pit_bins(z), NUM_PIT_BINS)
    return sums


def _of_members(name: str, data: ImageData, std: Array, seed: int) -> Sums:
    assert data.members is not None
    members, real = judged(data.members, data.hidden), judged(data.high_res, data.hidden)
    y = np.clip(np.rint(real), 0, WHITE).astype(np.uint8)
    rng = np.random.default_rng(stable_seed(seed, "ranks", name))
    floored = np.maximum(judged(std, data.hidden), VARIANCE_FLOOR**0.5)
    place = place_of_std(floored) // (NUM_BINS // _NUM_STDS)
    of_pixel, score = ranks(members, y, rng), fair_crps(members, real)
    return {
        "rank.count": _summed(place, _NUM_STDS),
        "rank.variance": _summed(place, _NUM_STDS, floored**2),
        "rank.crps": _summed(place, _NUM_STDS, score),
        "rank.histogram": _histogram(place, of_pixel, len(members) + 1),
    }


def _summed(place: Places, num: int, values: Array | None = None) -> Array:
    return np.bincount(place, values, minlength=num).astype(np.float64)


def _law_of_sampler(name: str, data: ImageData, seed: int) -> Array:
    """Metrics `REFERENCED` of samples in the place of y, against the others, on some pixels."""
    assert data.samples is not None and data.members is not None
    mean, m2 = (judged(part, data.hidden) for part in (data.samples.mean, data.samples.m2))
    rng, n = np.random.default_rng(stable_seed(seed, "left out", name)), data.samples.count
    places = rng.integers(0, mean.size, min(_NUM_PIXELS, mean.size))
    apart = judged(data.members[:_NUM_LEFT_OUT], data.hidden)[:, places] - mean[places]
    # x_i − x̄ of the others, and their k₂(1 + 1/(n − 1)): both follow from those of all
    squares = np.maximum(m2[places] - apart**2 * (n / (n - 1)), 0)
    variance = squares / (n - 2) * (1 + 1 / (n - 1))
    means, _ = calibrate(apart * (n / (n - 1)), np.zeros_like(variance), variance)
    return np.array([means[key] for key in REFERENCED])


def _histogram(place: Places, of_pixel: Places, num: int) -> Array:
    """Pixels by group and bin, (64, num)."""
    found = np.bincount(place * num + of_pixel, minlength=_NUM_STDS * num)
    return found.reshape(_NUM_STDS, num).astype(np.float64)


def _of(sums: Mapping[str, Array], prefix: str) -> Sums:
    return {n.removeprefix(prefix): v for n, v in sums.items() if n.startswith(prefix)}


def _equal_counts(sums: Mapping[str, Array], prefix: str) -> Sums:
    """Sums by five groups of equal count, by increasing std; a bin that is cut gives its share."""
    part = _of(sums, prefix)
    count = part["count"]
    edges = count.sum() * np.arange(_NUM_GROUPS + 1) / _NUM_GROUPS

    def cut(values: Array) -> Array:
        if values.ndim == 1:
            return np.diff(up_to(edges, count, values))
        return np.stack([cut(column) for column in values.T], axis=1)

    return {name: cut(values) for name, values in part.items()}


def _rows(part: Mapping[str, Array]) -> list[dict[str, float | None]]:
    """Pixels, rms std, rmse and mean scores of each group; None for a group without pixels."""
    rows: list[dict[str, float | None]] = []
    for i, count in enumerate(part["count"]):
        means = {name: float(part[name][i] / count) if count else None for name in _SCORES}
        roots = {
            key: float(np.sqrt(max(part[name][i], 0.0) / count)) if count else None
            for key, name in (("std", "variance"), ("rmse", "square"))
        }
        rows.append({"num_pixels": round(float(count)), **roots, **means})
    return rows


def _shape(by_std: Mapping[str, Array], expected: Array) -> Section:
    """Shares of all pixels, of each group, and of an exact law; and their distance, 0 to 1."""
    whole = by_std["histogram"].sum(axis=0)
    share = whole / whole.sum()
    groups = [
        {
            "std": float(np.sqrt(variance / count)),
            "share": _rounded(row / max(row.sum(), 1e-12)),
        }
        for variance, count, row in zip(
            by_std["variance"], by_std["count"], by_std["histogram"], strict=True
        )
    ]
    return {
        "share": _rounded(share),
        "expected": _rounded(expected),
        "distance": float(np.abs(share - expected).sum() / 2),
        "by_std": groups,
    }


def _rounded(values: Array) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
