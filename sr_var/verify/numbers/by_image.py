"""Metrics of classes, and the images that are worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sr_var.verify.numbers.metrics import ImageResult, pooled_metrics

# of a class: metric → key
_OF_CLASS = {
    "mean.relative_rms_error": "mean_rms_error",
    "var.relative_rms_error": "var_rms_error",
    "var.relative_bias": "var_bias",
    **{f"calibration.nets.{key}": key for key in ("z2", "nll", "crps", "coverage_90")},
}
# error² over variance is 1 for an exact net on every image; the second needs samples
_WORST_BY = ("calibration.nets.z2", "mean.relative_mse")
_NUM_WORST, _MAX_CLASSES = 5, 100


def class_rows(rows: Sequence[ImageResult]) -> list[dict[str, Any]]:
    """Metrics of the images of each class together, by name of the class; none for one class.

    Of more than a hundred classes those of the largest and smallest mean z² are listed, fifty each.
    """
    by_class: dict[str, list[ImageResult]] = {}
    for row in rows:
        by_class.setdefault(row.group, []).append(row)
    if len(by_class) < 2:
        return []
    found = [_of_class(group, of_group) for group, of_group in sorted(by_class.items())]
    if len(found) > _MAX_CLASSES:
        found.sort(key=lambda row: (row["z2"], row["class"]))
        found = found[: _MAX_CLASSES // 2] + found[-_MAX_CLASSES // 2 :]
    return found


def _of_class(group: str, rows: Sequence[ImageResult]) -> dict[str, Any]:
    names = [name for name in rows[0].means if all(name in row.means for row in rows)]
    means = {name: np.array(np.mean([row.means[name] for row in rows])) for name in names}
    metrics = pooled_metrics(means)
    values = {key: float(metrics[name]) for name, key in _OF_CLASS.items() if name in metrics}
    return {"class": group, "num_images": len(rows), **values}


def worst_images(rows: Sequence[ImageResult]) -> dict[str, list[dict[str, Any]]]:
    """The five images with the largest value of each metric of `_WORST_BY`, the worst first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for metric in _WORST_BY:
        known = [row for row in rows if math.isfinite(row.metrics.get(metric, math.nan))]
        worst = sorted(known, key=lambda row: (-row.metrics[metric], row.name))[:_NUM_WORST]
        if worst:
            found[metric] = [{"name": row.name, "value": row.metrics[metric]} for row in worst]
    return found
