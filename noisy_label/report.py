"""What a sweep found: the numbers over seeds, a table in the terminal, and `report.html`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
from scipy import stats

from noisy_label.files import TEST, TRAINING
from noisy_label.flags import BIASED, GENERATED, UNIFORM, SweepFlags
from noisy_label.noise import Labels, count_classes, flip_points
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
from utils.files.atomic import write_text_atomic
from utils.metrics import standard_error
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
NAMES = MappingProxyType({UNIFORM: "uniform", BIASED: "biased", GENERATED: "generated"})
_COLOURS = MappingProxyType({UNIFORM: "series-a", BIASED: "series-b", GENERATED: "series-c"})
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
        accuracy = np.where(alphas > flip, 1.0, 0.0)
        return {"alpha": _GRID, "accuracy": accuracy.tolist(), "flip": flip}
    clean = [clean_predictions(seed, flags.output_dir)[1] for seed in seeds(flags)]
    points = np.concatenate([flip_points(found, test_labels) for found in clean])
    return {
        "alpha": _GRID,
        "accuracy": np.mean(alphas[:, None] > points, axis=1).tolist(),
        "flip": float(np.median(points)),
        "flip_quantiles": [float(q) for q in np.quantile(points, [0.05, 0.95])],
    }


def text_table(summary: Summary) -> str:
    """The runs as text: ratio, accuracy with its interval, the theorem's, cross entropy, KL."""
    lines = [
        f"{'noise':<10}{'alpha':>6}{'right':>7}  {'accuracy':<24}{'q says':>7}{'published':>10}"
        f"{'CE':>8}{'floor':>8}{'KL train':>9}{'KL test':>8}"
    ]
    for row in summary["runs"]:
        test, published = row["test"], row["published_accuracy"]
        lines.append(
            f"{NAMES[row['noise_type']]:<10}{row['alpha']:>6g}"
            f"{row['noise']['ratio_of_correct_labels']['mean']:>7.3f}  "
            f"{_with_interval(test['accuracy']):<24}{test['predicted_accuracy']['mean']:>7.3f}"
            f"{'–' if published is None else f'{published:.4f}':>10}"
            f"{test['cross_entropy']['mean']:>8.3f}{test['floor']['mean']:>8.3f}"
            f"{row['training']['kl']['mean']:>9.3f}{test['kl']['mean']:>8.3f}"
        )
    clean = summary["clean"][TEST]["accuracy"]
    lines.append(f"clean labels: accuracy {_with_interval(clean)}")
    return "\n".join(lines)


def _with_interval(value: Mean) -> str:
    if value["interval"] is None:
        return f"{value['mean']:.4f}"
    low, high = value["interval"]
    return f"{value['mean']:.4f} [{low:.4f}, {high:.4f}]"


def write_report(log_dir: str, summary: Summary) -> str:
    """Write the page; return its path."""
    path = os.path.join(log_dir, "report.html")
    write_text_atomic(path, report_page(summary).render())
    return path


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
    by_kind = {
        kind: [row for row in summary["runs"] if row["noise_type"] == kind]
        for kind in NAMES
        if kind in summary["theorem"]
    }
    verdict = [_verdict(kind, rows, summary["theorem"][kind]) for kind, rows in by_kind.items()]
    plots = [_accuracy_plot(by_kind, summary["theorem"]), _entropy_plot(by_kind)]
    tables = _tables(by_kind, summary["clean"][TEST]["accuracy"])
    return Page(
        title="Learning with noisy labels",
        lead=join(lead, tag("div", *verdict, class_="verdict", role="note")),
        sections=[
            Section("plots", "Plots", tag("div", *plots, class_="plots")),
            Section("figures", "Figures", tag("div", *tables, class_="tables")),
        ],
    )


def _verdict(kind: str, rows: Sequence[Row], theorem: Prediction) -> Html:
    """How far accuracies are from those of a net that has learned q."""
    gaps = [
        abs(row["test"]["accuracy"]["mean"] - row["test"]["predicted_accuracy"]["mean"])
        for row in rows
    ]
    worst = rows[gaps.index(max(gaps))]
    return tag(
        "p",
        f"{NAMES[kind].capitalize()} noise: the law predicts that accuracy falls at a "
        f"share of {number(theorem['flip'], 3)}. Trained nets differ from "
        f"that by {number(max(gaps), 2)} at most (at {number(worst['alpha'], 3)}).",
    )


_ByKind = Mapping[str, Sequence[Row]]


def _accuracy_plot(by_kind: _ByKind, theorem: Mapping[str, Prediction]) -> Html:
    series = []
    for kind, rows in by_kind.items():
        name, colour, x = NAMES[kind], _COLOURS[kind], _ratios(rows)
        law = theorem[kind]
        intervals = [row["test"]["accuracy"]["interval"] for row in rows]
        published = [row["published_accuracy"] for row in rows]
        series += [
            Series(f"{name}, theorem", law["alpha"], law["accuracy"], f"reference {colour}"),
            Series(name, x, _values(rows, "accuracy"), colour, "points", intervals),
        ]
        if any(published):
            series.append(Series(f"{name}, published (MNIST)", x, published, colour, "crosses"))
    axis = Axis("accuracy on test images", 0.0, 1.0)
    note = (
        "Dashed: the accuracy of a net that has learned the law exactly. It falls where another "
        "class gets the largest probability."
    )
    return figure("Accuracy", plot(_alt(by_kind, "accuracy"), _X_AXIS, axis, series), note)


def _entropy_plot(by_kind: _ByKind) -> Html:
    series = []
    for kind, rows in by_kind.items():
        name, colour, x = NAMES[kind], _COLOURS[kind], _ratios(rows)
        series += [
            Series(f"{name}, floor", x, _values(rows, "floor"), f"reference {colour}"),
            Series(name, x, _values(rows, "cross_entropy"), colour, "points"),
        ]
    axis = Axis.over("cross entropy on test images, nats", [v for part in series for v in part.y])
    note = "Dashed: the entropy of the law, the floor of the cross entropy."
    picture = plot(_alt(by_kind, "cross_entropy"), _X_AXIS, axis, series)
    return figure("Cross entropy", picture, note)


def _ratios(rows: Sequence[Row]) -> list[float]:
    return [row["noise"]["ratio_of_correct_labels"]["mean"] for row in rows]


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row["test"][name]["mean"] for row in rows]


def _alt(by_kind: _ByKind, name: str) -> str:
    ends = {kind: _values(rows, name) for kind, rows in by_kind.items()}
    parts = (f"{NAMES[k]} from {number(y[0], 3)} to {number(y[-1], 3)}" for k, y in ends.items())
    return f"{name.replace('_', ' ')} as the share of right labels falls: " + "; ".join(parts)


def _tables(by_kind: _ByKind, clean: Mean) -> list[Html]:
    accuracy = [Rows(NAMES[kind], list(map(_accuracy_row, by_kind[kind]))) for kind in by_kind]
    law = [Rows(NAMES[kind], list(map(_law_row, by_kind[kind]))) for kind in by_kind]
    accuracy.append(Rows("clean labels", [["1", "1", "0", _cell(clean), "–", "–"]]))
    return [
        table("Accuracy on test images", _ACCURACY_HEAD, accuracy),
        table("Against the law, nats", _LAW_HEAD, law),
    ]


def _accuracy_row(row: Row) -> list[Child]:
    noise, test = row["noise"], row["test"]
    return [
        number(row["alpha"], 3),
        number(noise["ratio_of_correct_labels"]["mean"]),
        number(noise["largest_is_wrong"]["mean"]),
        _cell(test["accuracy"]),
        number(test["predicted_accuracy"]["mean"]),
        number(row["published_accuracy"]),
    ]


def _law_row(row: Row) -> list[Child]:
    training, test = row["training"], row["test"]
    return [
        number(row["alpha"], 3),
        _cell(test["cross_entropy"]),
        number(test["floor"]["mean"]),
        _cell(training["kl"]),
        _cell(test["kl"]),
        _cell(training["cross_entropy_of_drawn"]),
    ]


def _cell(value: Mean) -> Html:
    if value["interval"] is None:
        return join(number(value["mean"]))
    low, high = value["interval"]
    return join(number(value["mean"]), tag("small", f" {number(low, 3)} to {number(high, 3)}"))
