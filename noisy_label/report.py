"""What a sweep shows: a table in the terminal, two pictures, and ``report.html``.

Figures are those of ``sweep_summary``; nothing is computed here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from noisy_label.files import TEST, TRAINING
from noisy_label.flags import BIASED, GENERATED, UNIFORM, SweepFlags
from noisy_label.noise import Labels, count_classes, flip_points
from noisy_label.pictures import draw_series
from noisy_label.sweep import (
    SHARED,
    SweepRun,
    clean_predictions,
    clean_runs,
    noisy_runs,
    result_of,
    seeds,
)
from utils.files.atomic import write_text_atomic
from utils.report.html import (
    Axis,
    Child,
    Html,
    Page,
    Rows,
    Section,
    Series,
    figure,
    join,
    number,
    plot,
    table,
    tag,
)

RATIOS = (0.89, 0.80, 0.71, 0.62, 0.53, 0.43, 0.33, 0.23)
ACCURACY = MappingProxyType(
    {
        UNIFORM: (0.9835, 0.9814, 0.9814, 0.9826, 0.9765, 0.9737, 0.9651, 0.9557),
        BIASED: (0.9837, 0.9795, 0.9695, 0.9098, 0.5707, 0.1887, 0.0397, 0.0066),
        GENERATED: (0.9820, 0.9756, 0.9707, 0.9401, 0.8551, 0.6685, 0.4392, 0.2237),
    }
)


def published_accuracy(noise_type: str, alpha: float) -> float | None:
    """The published figure of a run; None for a ratio that was not published."""
    if alpha not in RATIOS:
        return None
    return ACCURACY[noise_type][RATIOS.index(alpha)]


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


NAMES = MappingProxyType({UNIFORM: "uniform", BIASED: "biased", GENERATED: "generated"})
_CLASSES = MappingProxyType({UNIFORM: "series-a", BIASED: "series-b", GENERATED: "series-c"})
_ACCURACY_HEAD = (
    "alpha",
    "share of right labels",
    "images misled",
    "accuracy",
    "by the law",
    "published (MNIST)",
)
_LAW_HEAD = (
    "alpha",
    "cross entropy, test",
    "floor",
    "KL, training",
    "KL, test",
    "cross entropy, drawn training labels",
)
_X_AXIS = Axis("share of right labels", 0.0, 1.0)
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class _Plot:
    """What is drawn twice, on the page and as a picture."""

    name: str
    y_axis: Axis
    series: list[Series]
    note: str


def text_table(summary: Summary) -> str:
    """The runs as text: ratio, accuracy with its interval, the theorem's, cross entropy, KL."""
    head = (
        f"{'noise':<10}{'alpha':>6}{'right':>7}  {'accuracy':<24}{'q says':>7}{'published':>10}"
        f"{'CE':>8}{'floor':>8}{'KL train':>9}{'KL test':>8}"
    )
    lines = [head]
    for row in summary["runs"]:
        test, training = row[TEST], row[TRAINING]
        published = row["published_accuracy"]
        lines.append(
            f"{NAMES[row['noise_type']]:<10}{row['alpha']:>6g}"
            f"{row['noise']['ratio_of_correct_labels']['mean']:>7.3f}  "
            f"{_with_interval(test['accuracy']):<24}{test['predicted_accuracy']['mean']:>7.3f}"
            f"{'–' if published is None else f'{published:.4f}':>10}"
            f"{test['cross_entropy']['mean']:>8.3f}{test['floor']['mean']:>8.3f}"
            f"{training['kl']['mean']:>9.3f}{test['kl']['mean']:>8.3f}"
        )
    clean = summary["clean"][TEST]["accuracy"]
    lines.append(f"clean labels: accuracy {_with_interval(clean)}")
    return "\n".join(lines)


def _with_interval(value: Mapping[str, Any]) -> str:
    if value["interval"] is None:
        return f"{value['mean']:.4f}"
    low, high = value["interval"]
    return f"{value['mean']:.4f} [{low:.4f}, {high:.4f}]"


def write_report(log_dir: str, summary: Summary) -> str:
    """The two pictures and the page; returns the path of the page."""
    for one in _plots(summary):
        draw_series(os.path.join(log_dir, f"{one.name}.png"), _X_AXIS, one.y_axis, one.series)
    path = os.path.join(log_dir, "report.html")
    write_text_atomic(path, report_page(summary).render())
    return path


def _runs_of(summary: Summary, noise_type: str) -> list[Mapping[str, Any]]:
    return [row for row in summary["runs"] if row["noise_type"] == noise_type]


def _types(summary: Summary) -> list[str]:
    return [noise_type for noise_type in NAMES if noise_type in summary["theorem"]]


def _ratios(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["noise"]["ratio_of_correct_labels"]["mean"] for row in rows]


def _values(rows: Sequence[Mapping[str, Any]], section: str, name: str) -> list[float]:
    return [row[section][name]["mean"] for row in rows]


def report_page(summary: Summary) -> Page:
    """The page, before it is text."""
    settings = summary["settings"]
    lead = tag(
        "p",
        f"{settings['num_training_images']} training and {settings['num_test_images']} test "
        f"images; {settings['max_step']} steps of {settings['batch_size']} at {settings['lr']:g}; "
        f"{len(settings['seeds'])} repetitions. Intervals are 95 %, over repetitions.",
        class_="subtitle",
    )
    plots = [_figure(summary, one) for one in _plots(summary)]
    return Page(
        title="Learning with noisy labels",
        lead=join(lead, tag("div", *_verdict(summary), class_="verdict", role="note")),
        sections=[
            Section("plots", "Plots", tag("div", *plots, class_="plots")),
            Section("figures", "Figures", tag("div", *_tables(summary), class_="tables")),
        ],
    )


def _verdict(summary: Summary) -> list[Html]:
    """Per noise type: how far accuracies are from those of a net that has learned q."""
    lines = []
    for kind in _types(summary):
        rows = _runs_of(summary, kind)
        gaps = [
            abs(row[TEST]["accuracy"]["mean"] - row[TEST]["predicted_accuracy"]["mean"])
            for row in rows
        ]
        worst = rows[gaps.index(max(gaps))]
        lines.append(
            tag(
                "p",
                f"{NAMES[kind].capitalize()} noise: the law predicts that accuracy falls at a "
                f"share of {number(summary['theorem'][kind]['flip'], 3)}. Trained nets differ from "
                f"that by {number(max(gaps), 2)} at most (at {number(worst['alpha'], 3)}).",
            )
        )
    return lines


def _plots(summary: Summary) -> list[_Plot]:
    accuracy, entropy = [], []
    for kind in _types(summary):
        rows, theorem = _runs_of(summary, kind), summary["theorem"][kind]
        name, colour, x = NAMES[kind], _CLASSES[kind], _ratios(rows)
        expected = f"reference {colour}"
        found = _values(rows, TEST, "accuracy")
        intervals = [row[TEST]["accuracy"]["interval"] for row in rows]
        published = [row["published_accuracy"] for row in rows]
        accuracy += [
            Series(f"{name}, theorem", theorem["alpha"], theorem["accuracy"], expected),
            Series(name, x, found, colour, "points", intervals),
        ]
        if any(published):
            accuracy.append(Series(f"{name}, published (MNIST)", x, published, colour, "crosses"))
        entropy += [
            Series(f"{name}, floor", x, _values(rows, TEST, "floor"), expected),
            Series(name, x, _values(rows, TEST, "cross_entropy"), colour, "points"),
        ]
    top = Axis.over("cross entropy on test images, nats", [v for part in entropy for v in part.y])
    return [
        _Plot(
            "accuracy",
            Axis("accuracy on test images", 0.0, 1.0),
            accuracy,
            "Dashed: the accuracy of a net that has learned the law exactly. It falls where "
            "another class gets the largest probability.",
        ),
        _Plot(
            "cross_entropy",
            top,
            entropy,
            "Dashed: the entropy of the law, the floor of the cross entropy.",
        ),
    ]


def _figure(summary: Summary, one: _Plot) -> Html:
    picture = plot(_alt(summary, one.name), _X_AXIS, one.y_axis, one.series)
    return figure(one.name.replace("_", " ").capitalize(), picture, one.note)


def _alt(summary: Summary, name: str) -> str:
    parts = []
    for kind in _types(summary):
        rows = _runs_of(summary, kind)
        y = _values(rows, TEST, name)
        parts.append(f"{NAMES[kind]} from {number(y[0], 3)} to {number(y[-1], 3)}")
    return f"{name.replace('_', ' ')} as the share of right labels falls: " + "; ".join(parts)


def _tables(summary: Summary) -> list[Html]:
    groups = [(NAMES[kind], _runs_of(summary, kind)) for kind in _types(summary)]
    accuracy = [Rows(name, [_accuracy_cells(row) for row in rows]) for name, rows in groups]
    clean = _cell(summary["clean"][TEST]["accuracy"])
    accuracy.append(Rows("clean labels", [["1", "1", "0", clean, "–", "–"]]))
    law = [Rows(name, [_law_cells(row) for row in rows]) for name, rows in groups]
    return [
        table("Accuracy on test images", _ACCURACY_HEAD, accuracy),
        table("Against the law, nats", _LAW_HEAD, law),
    ]


def _accuracy_cells(row: Mapping[str, Any]) -> Sequence[Child]:
    return [
        number(row["alpha"], 3),
        number(row["noise"]["ratio_of_correct_labels"]["mean"]),
        number(row["noise"]["largest_is_wrong"]["mean"]),
        _cell(row[TEST]["accuracy"]),
        number(row[TEST]["predicted_accuracy"]["mean"]),
        number(row["published_accuracy"]),
    ]


def _law_cells(row: Mapping[str, Any]) -> Sequence[Child]:
    return [
        number(row["alpha"], 3),
        _cell(row[TEST]["cross_entropy"]),
        number(row[TEST]["floor"]["mean"]),
        _cell(row[TRAINING]["kl"]),
        _cell(row[TEST]["kl"]),
        _cell(row[TRAINING]["cross_entropy_of_drawn"]),
    ]


def _cell(value: Mapping[str, Any]) -> Html:
    interval = value["interval"]
    small = None
    if interval is not None:
        small = tag("small", f" {number(interval[0], 3)} to {number(interval[1], 3)}")
    return join(number(value["mean"]), small)
