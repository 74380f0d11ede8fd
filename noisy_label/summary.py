"""What all runs of a sweep found together: numbers over seeds, beside what the theorem predicts."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
from scipy import stats

from noisy_label.files import TEST, TRAINING
from noisy_label.flags import BIASED, GENERATED, UNIFORM, SweepFlags
from noisy_label.noise import (
    Labels,
    biased_law,
    count_classes,
    flip_points,
    predicted_accuracy,
    uniform_law,
)
from noisy_label.sweep import (
    SHARED,
    Figures,
    SweepRun,
    clean_predictions,
    clean_runs,
    noisy_runs,
    result_of,
    seeds,
)
from utils.metrics import standard_error

# published shares of right labels, and accuracies on MNIST's test images at them
RATIOS = (0.89, 0.80, 0.71, 0.62, 0.53, 0.43, 0.33, 0.23)
ACCURACY = MappingProxyType(
    {
        UNIFORM: (0.9835, 0.9814, 0.9814, 0.9826, 0.9765, 0.9737, 0.9651, 0.9557),
        BIASED: (0.9837, 0.9795, 0.9695, 0.9098, 0.5707, 0.1887, 0.0397, 0.0066),
        GENERATED: (0.9820, 0.9756, 0.9707, 0.9401, 0.8551, 0.6685, 0.4392, 0.2237),
    }
)
_GRID = [i / 200 for i in range(201)]
_CONFIDENCE = 0.95


class Mean(TypedDict):
    """A figure over seeds and its 95 % interval; none of a single seed."""

    mean: float
    interval: list[float] | None


class Row(TypedDict):
    """The runs of one noise type and share of right labels, over their seeds."""

    noise_type: str
    alpha: float
    noise: dict[str, Mean]
    training: dict[str, Mean]
    test: dict[str, Mean]
    published_accuracy: float | None


class Prediction(TypedDict, total=False):
    """The accuracy of a net that has learned q, against α, and where that falls."""

    alpha: list[float]
    accuracy: list[float]
    flip: float
    flip_quantiles: list[float]


class Summary(TypedDict):
    """The content of `results.json` (docs/file_formats.md)."""

    settings: dict[str, Any]
    clean: dict[str, dict[str, Mean]]
    runs: list[Row]
    theorem: dict[str, Prediction]


def published_accuracy(noise_type: str, alpha: float) -> float | None:
    """The published figure of a run; None for a ratio that was not published."""
    if alpha not in RATIOS:
        return None
    return ACCURACY[noise_type][RATIOS.index(alpha)]


def summarise(flags: SweepFlags, training_labels: Labels, test_labels: Labels) -> Summary:
    """What all runs of a sweep, which are finished, found together."""
    clean = [_finished(run, flags) for run in clean_runs(flags)]
    by_place: dict[tuple[str, float], list[Figures]] = {}
    for run in noisy_runs(flags):
        by_place.setdefault((run.noise_type, run.alpha), []).append(_finished(run, flags))
    num_classes = count_classes(training_labels)
    return {
        "settings": {
            **{name: getattr(flags, name) for name in SHARED if name != "data_dir"},
            "seeds": list(seeds(flags)),
            "num_training_images": len(training_labels),
            "num_test_images": len(test_labels),
        },
        "clean": {
            split: {"accuracy": over_seeds(clean, split, "accuracy")} for split in (TRAINING, TEST)
        },
        "runs": [
            _row(kind, alpha, by_place[kind, alpha])
            for kind in flags.types
            for alpha in flags.shares
        ],
        "theorem": {
            kind: _prediction(kind, flags, test_labels, num_classes) for kind in flags.types
        },
    }


def share_per_alpha(rows: Sequence[Row]) -> float:
    """The expected share of right labels at α, over α, of the runs of one noise type.

    1 but for generated noise, where it is the mean of p(y) over the training images.
    """
    row = max(rows, key=lambda row: row["alpha"])
    return row["noise"]["expected_ratio"]["mean"] / row["alpha"] if row["alpha"] else 1.0


def over_seeds(results: Sequence[Figures], section: str, name: str) -> Mean:
    """Mean over seeds and its 95 % interval by Student's t; no interval of a single seed.

    An accuracy's interval ends where accuracies do, at 0 and 1.
    """
    values = np.array([result[section][name] for result in results], np.float64)
    mean = float(values.mean())
    error = standard_error(values)
    if error is None:
        return {"mean": mean, "interval": None}
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1)) * error
    interval = [mean - half, mean + half]
    if name.endswith("accuracy"):
        interval = [max(0.0, interval[0]), min(1.0, interval[1])]
    return {"mean": mean, "interval": interval}


def _row(noise_type: str, alpha: float, results: Sequence[Figures]) -> Row:
    def section(name: str) -> dict[str, Mean]:
        return {key: over_seeds(results, name, key) for key in results[0][name]}

    return {
        "noise_type": noise_type,
        "alpha": alpha,
        "noise": section("noise"),
        "training": section(TRAINING),
        "test": section(TEST),
        "published_accuracy": published_accuracy(noise_type, alpha),
    }


def _finished(run: SweepRun, flags: SweepFlags) -> Figures:
    result = result_of(run, flags.output_dir)
    assert result is not None, run
    return result


def _prediction(
    noise_type: str, flags: SweepFlags, test_labels: Labels, num_classes: int
) -> Prediction:
    """For generated noise each image has a flip point of its own; their median stands for all."""
    alphas = np.array(_GRID)
    if noise_type != GENERATED:
        flip = 1 / num_classes if noise_type == UNIFORM else 0.5
        law_of, right = (uniform_law if noise_type == UNIFORM else biased_law), np.zeros(1, int)
        accuracy = [predicted_accuracy(law_of(right, alpha, num_classes), right) for alpha in _GRID]
        return {"alpha": _GRID, "accuracy": accuracy, "flip": flip}
    clean = [clean_predictions(seed, flags.output_dir)[1] for seed in seeds(flags)]
    points = np.concatenate([flip_points(found, test_labels) for found in clean])
    # at its flip point the right class is one of two that are equally likely
    accuracy = np.mean(np.heaviside(alphas[:, None] - points, 0.5), axis=1)
    return {
        "alpha": _GRID,
        "accuracy": accuracy.tolist(),
        "flip": float(np.median(points)),
        "flip_quantiles": [float(q) for q in np.quantile(points, [0.05, 0.95])],
    }
