"""The content of ``results.json``: all images together, with intervals and verdict.

Fixed in size: neither pixels nor images are listed (but for the pixels of a scatter plot). Reads
and writes nothing but the sampler's settings, for the cost; ``table`` says it in text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    own = {
        f"{section}.{key}": np.array([row.figures[section][key] for row in rows])
        for section, key in _own_keys(rows[0])
    }
    figures = averages([_own(row) for row in rows])
    pooled = pooled_figures({name: values.mean() for name, values in means.items()})
    result: dict[str, Any] = {
        "num_images": len(rows),
        "num_samples": flags.num_samples,
        "num_images_with_float_moments": sum(row.is_float for row in rows),
        **figures,
    }
    for name, value in pooled.items():
        _set(result, name, float(value))
    for route, sums in totals.histograms.items():
        num_floored = sum(row.means[f"{route}.num_floored"] for row in rows)
        result["calibration"][route] |= {
            **{name: figure(sums) for name, figure in _OF_HISTOGRAMS.items()},
            "num_floored": int(num_floored),
        }

    def figures_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = {name: part[f"own.{name}"] for name in own}
        # pooled ones last: a ratio of sums takes the place of a mean of ratios
        return {**kept, **pooled_figures({name: part[name] for name in names})}

    table = {**means, **{f"own.{name}": values for name, values in own.items()}}
    replicates = bootstrap(table, figures_of, flags.seed) if len(rows) > 1 else {}
    result["intervals"] = {
        name: percentile_interval(values, 0.95) for name, values in replicates.items()
    } | (totals.intervals() if replicates else {})
    flat = {name: float(value) for name, value in pooled.items()}
    result["verdict"] = verdict(flat, replicates, flags.margin)
    result["cost"] = cost(flags)
    if "truth" in result:
        result["truth"]["text"] = truth_text(result["truth"], flags.num_samples)
    result["curves"] = {route: curves(sums) for route, sums in totals.histograms.items()}
    result["scatter"] = totals.scatter()
    return result


def flat_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Dotted name → value, for TensorBoard, which has no place for infinity, lists and words."""
    skipped = ("intervals", "curves", "scatter", "verdict")
    found: dict[str, float] = {}
    for section, part in summary.items():
        if isinstance(part, Mapping) and section not in skipped:
            found |= {f"{section}.{name}": value for name, value in _leaves(part).items()}
    return found


def _leaves(part: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in part.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": leaf for name, leaf in _leaves(value).items()}
        elif isinstance(value, (int, float)) and math.isfinite(value):
            found[key] = value
    return found


def _own_keys(row: ImageResult) -> list[tuple[str, str]]:
    own = _own(row)
    return [(section, key) for section in own for key in own[section] if key[:4] != "num_"]


def _own(row: ImageResult) -> dict[str, dict[str, float]]:
    """The figures that are averaged over images as they are."""
    return {section: row.figures[section] for section in _OWN_SECTIONS}


def _set(result: dict[str, Any], dotted: str, value: float) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        result = result.setdefault(section, {})
    result[key] = value
