"""The content of ``results.json``: all images together, with intervals and verdict.

Fixed in size: neither pixels nor images are listed (but for the pixels of a scatter plot). Reads
and writes nothing but the sampler's settings, for the cost; ``table`` says it in text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from sr_var.flags.scripts import VerificationFlags
from sr_var.verify.calibration import Histograms, ause, curves, ence
from sr_var.verify.cost import cost
from sr_var.verify.figures import Array, averages
from sr_var.verify.images import ImageResult
from sr_var.verify.intervals import (
    HistogramReplicates,
    bootstrap,
    percentile_interval,
    verdict,
)
from sr_var.verify.pooled import ROUTES, pooled_figures
from sr_var.verify.truth import truth_text

MAX_SCATTER = 4000
_OF_HISTOGRAMS = MappingProxyType({"ence": ence, "ause": ause})
_OWN_SECTIONS = ("mean", "var", "high_res", "edges")


class Totals:
    """Adds up what does not belong to one image, in the order of the images."""

    def __init__(self, seed: int) -> None:
        self._replicates = HistogramReplicates(seed)
        self.histograms = {route: Histograms() for route in ROUTES}
        self._scatter: list[Array] = []

    def add(self, result: ImageResult) -> None:
        """Takes in one image."""
        assert result.histograms is not None
        for route, histograms in result.histograms.items():
            self.histograms[route].add(histograms)
        self._replicates.add(result.histograms)
        self._scatter.append(result.scatter)

    def intervals(self) -> dict[str, list[float] | None]:
        """95 % intervals of the figures that are read off histograms."""
        return {
            f"calibration.{route}.{name}": percentile_interval(
                self._replicates.replicates(route, figure), 0.95
            )
            for route in ROUTES
            for name, figure in _OF_HISTOGRAMS.items()
        }

    def scatter(self) -> dict[str, list[float]]:
        """At most 4000 pixels, five digits each."""
        pairs = np.concatenate(self._scatter, axis=1)  # (2, k)
        if pairs.shape[1] > MAX_SCATTER:
            pairs = pairs[:, np.linspace(0, pairs.shape[1] - 1, MAX_SCATTER).astype(int)]
        nets, samples = ([float(f"{value:.5g}") for value in row] for row in pairs)
        return {"std_nets": nets, "std_samples": samples}


def scatter_per_image(num_images: int) -> int:
    """Pixels that each image gives to the scatter plot."""
    return max(1, MAX_SCATTER // max(num_images, 1))


def summarise(
    rows: Sequence[ImageResult], totals: Totals, flags: VerificationFlags
) -> dict[str, Any]:
    """All sections; docs/file_formats.md lists them."""
    names = [name for name in rows[0].means if all(name in row.means for row in rows)]
    means = {name: np.array([row.means[name] for row in rows]) for name in names}
    found = pooled_figures({name: values.mean() for name, values in means.items()})
    pooled = {name: float(value) for name, value in found.items()}
    replicates = _replicates(rows, means, flags.seed) if len(rows) > 1 else {}
    intervals = {name: percentile_interval(values, 0.95) for name, values in replicates.items()}
    # pooled ones behind averages: a ratio of sums takes the place of a mean of ratios
    sections = _nested({**_averages(rows), **pooled, **_of_all_pixels(rows, totals)})
    if "truth" in sections:
        text = truth_text(sections["truth"], flags.num_samples)
        sections["truth"] = {**sections["truth"], "text": text}
    return {
        "num_images": len(rows),
        "num_samples": flags.num_samples,
        "num_images_with_float_moments": sum(row.is_float for row in rows),
        **sections,
        "intervals": {**intervals, **totals.intervals()} if replicates else {},
        "verdict": verdict(pooled, replicates, flags.margin),
        "cost": cost(flags),
        "curves": {route: curves(sums) for route, sums in totals.histograms.items()},
        "scatter": totals.scatter(),
    }


def _averages(rows: Sequence[ImageResult]) -> dict[str, float]:
    """Dotted name → mean over images, of the figures that each image has of its own."""
    found = averages([_own(row) for row in rows])
    return {f"{section}.{key}": value for section in found for key, value in found[section].items()}


def _of_all_pixels(rows: Sequence[ImageResult], totals: Totals) -> dict[str, float]:
    """Dotted name → figure, of the histograms of all images."""
    found: dict[str, float] = {}
    for route, sums in totals.histograms.items():
        for name, figure in _OF_HISTOGRAMS.items():
            found[f"calibration.{route}.{name}"] = figure(sums)
        num_floored = int(sum(row.means[f"{route}.num_floored"] for row in rows))
        found[f"calibration.{route}.num_floored"] = num_floored
    return found


def _replicates(
    rows: Sequence[ImageResult], means: Mapping[str, Array], seed: int
) -> dict[str, Array]:
    """Bootstrap replicates of averages and pooled figures by dotted name."""
    own = {
        f"own.{section}.{key}": np.array([row.figures[section][key] for row in rows])
        for section, key in _own_keys(rows[0])
    }

    def figures_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = {name.removeprefix("own."): part[name] for name in own}
        return {**kept, **pooled_figures({name: part[name] for name in means})}

    return bootstrap({**means, **own}, figures_of, seed)


def flat_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Dotted name → value, for TensorBoard, which has no place for infinity, lists and words."""
    skipped = ("intervals", "curves", "scatter", "verdict")
    return {
        name: value
        for section, part in summary.items()
        if isinstance(part, Mapping) and section not in skipped
        for name, value in _leaves(part, f"{section}.")
    }


def _leaves(part: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + key, value


def _own_keys(row: ImageResult) -> list[tuple[str, str]]:
    own = _own(row)
    return [(section, key) for section in own for key in own[section] if key[:4] != "num_"]


def _own(row: ImageResult) -> dict[str, dict[str, float]]:
    """The figures that are averaged over images as they are."""
    return {section: row.figures[section] for section in _OWN_SECTIONS}


def _nested(flat: Mapping[str, float]) -> dict[str, Any]:
    """Sections of sections from dotted names."""
    result: dict[str, Any] = {}
    for dotted, value in flat.items():
        *sections, key = dotted.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return result
