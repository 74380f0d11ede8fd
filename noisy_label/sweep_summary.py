"""The content of a sweep's ``results.json``: means and intervals over seeds, and the theorem.

Computes; draws and writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_label.files import TEST, TRAINING
from noisy_label.flags import BIASED, GENERATED, UNIFORM, SweepFlags
from noisy_label.noise import Labels, count_classes, flip_points
from noisy_label.published import published_accuracy
from noisy_label.sweep import (
    SHARED,
    SweepRun,
    clean_predictions,
    clean_runs,
    noisy_runs,
    result_of,
    seeds,
)

_GRID = [i / 200 for i in range(201)]
_CONFIDENCE = 0.95


def summarise(flags: SweepFlags, training_labels: Labels, test_labels: Labels) -> dict[str, Any]:
    """Sections ``settings``, ``clean``, ``runs`` and ``theorem`` (docs/file_formats.md)."""
    clean = [_finished(run, flags) for run in clean_runs(flags)]
    by_place: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in noisy_runs(flags):
        by_place.setdefault((run.noise_type, run.alpha), []).append(_finished(run, flags))
    places = [(noise_type, alpha) for noise_type in flags.types for alpha in flags.shares]
    return {
        "settings": {
            **{name: getattr(flags, name) for name in SHARED if name != "data_dir"},
            "seeds": list(seeds(flags)),
            "num_training_images": len(training_labels),
            "num_test_images": len(test_labels),
        },
        "clean": {split: {"accuracy": over_seeds(clean, split, "accuracy")} for split in _SPLITS},
        "runs": [_row(*place, by_place[place]) for place in places],
        "theorem": {
            noise_type: _prediction(noise_type, flags, test_labels, count_classes(training_labels))
            for noise_type in flags.types
        },
    }


_SPLITS = (TRAINING, TEST)


def over_seeds(
    results: Sequence[Mapping[str, Any]], section: str, name: str
) -> dict[str, float | list[float] | None]:
    """Mean over seeds and its 95 % interval by Student's t; no interval of a single seed.

    An accuracy's interval ends where accuracies do, at 0 and 1.
    """
    values = np.array([result[section][name] for result in results], np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "interval": None}
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1)) * error
    interval = [mean - half, mean + half]
    if name.endswith("accuracy"):
        interval = [max(0.0, interval[0]), min(1.0, interval[1])]
    return {"mean": mean, "interval": interval}


def _row(noise_type: str, alpha: float, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "noise_type": noise_type,
        "alpha": alpha,
        **{
            section: {name: over_seeds(results, section, name) for name in results[0][section]}
            for section in ("noise", *_SPLITS)
        },
        "published_accuracy": published_accuracy(noise_type, alpha),
    }


def _finished(run: SweepRun, flags: SweepFlags) -> dict[str, Any]:
    result = result_of(run, flags.output_dir)
    assert result is not None, run
    return result


def _prediction(
    noise_type: str, flags: SweepFlags, test_labels: Labels, num_classes: int
) -> dict[str, Any]:
    """The accuracy of a net that has learned q, against α, and where that falls.

    For generated noise each image has a flip point of its own; their median stands for all.
    """
    alphas = np.array(_GRID)
    if noise_type == GENERATED:
        points = np.concatenate(
            [
                flip_points(clean_predictions(s, flags.output_dir)[1], test_labels)
                for s in seeds(flags)
            ]
        )
        accuracy = np.mean(alphas[:, None] > points, axis=1)
        return {
            "alpha": _GRID,
            "accuracy": accuracy.tolist(),
            "flip": float(np.median(points)),
            "flip_quantiles": [float(q) for q in np.quantile(points, [0.05, 0.95])],
        }
    flip = {UNIFORM: 1 / num_classes, BIASED: 0.5}[noise_type]
    accuracy = np.where(alphas > flip, 1.0, 0.0)
    return {"alpha": _GRID, "accuracy": accuracy.tolist(), "flip": flip}
