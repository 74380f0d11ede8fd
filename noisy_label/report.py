"""What a sweep found, as people read it: words and a table in the terminal, and `report.html`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from noisy_label.files import TEST
from noisy_label.flags import BIASED, GENERATED, UNIFORM
from noisy_label.summary import Mean, Prediction, Row, Summary, share_per_alpha
from noisy_label.words import NAMES, all_in_words, by_kind, seen_in_words, theorem_in_words
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
    key,
    number,
    plot,
    table,
    tag,
)

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
_WIDTH = 100
_X_AXIS = Axis("share of right labels", 0.0, 1.0)


def words_text(summary: Summary) -> str:
    """What is predicted and what was seen, of all runs and of each noise type, as text."""
    said = [theorem_in_words(), all_in_words(summary), *_seen(summary).values()]
    return "\n".join(line for part in said for line in textwrap.wrap(part, _WIDTH))


def _repetitions(count: int) -> str:
    if count == 1:
        return "one repetition, so without intervals."
    return f"{count} repetitions. Intervals are 95 %, over repetitions."


def _seen(summary: Summary) -> dict[str, str]:
    """The words of each noise type."""
    theorem = summary["theorem"]
    kinds = by_kind(summary)
    return {kind: seen_in_words(kind, rows, theorem[kind]) for kind, rows in kinds.items()}


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
        + _repetitions(len(settings["seeds"])),
        class_="subtitle",
    )
    kinds = by_kind(summary)
    seen = [tag("p", key(_COLOURS[kind]), " ", said) for kind, said in _seen(summary).items()]
    headline = tag("p", tag("strong", theorem_in_words())), tag("p", all_in_words(summary))
    plots = [_accuracy_plot(kinds, summary["theorem"]), _entropy_plot(kinds)]
    tables = _tables(kinds, summary["clean"][TEST]["accuracy"])
    return Page(
        title="Learning with noisy labels",
        lead=join(lead, tag("div", *headline, *seen, class_="verdict", role="note")),
        sections=[
            Section("plots", "Plots", tag("div", *plots, class_="plots")),
            Section("figures", "Figures", tag("div", *tables, class_="tables")),
        ],
    )


_ByKind = Mapping[str, Sequence[Row]]


def _accuracy_plot(kinds: _ByKind, theorem: Mapping[str, Prediction]) -> Html:
    series = []
    for kind, rows in kinds.items():
        name, colour, x = NAMES[kind], _COLOURS[kind], _ratios(rows)
        law, scale = theorem[kind], share_per_alpha(rows)
        shares = [scale * alpha for alpha in law["alpha"]]
        intervals = [row["test"]["accuracy"]["interval"] for row in rows]
        published = [row["published_accuracy"] for row in rows]
        alphas = [row["alpha"] for row in rows]
        series += [
            Series(f"{name}, theorem", shares, law["accuracy"], f"reference {colour}"),
            Series(name, x, _values(rows, "accuracy"), colour, "points", intervals),
        ]
        if any(published):
            series.append(
                Series(f"{name}, published (MNIST)", alphas, published, colour, "crosses")
            )
    axis = Axis("accuracy on test images", 0.0, 1.0)
    note = (
        "Dotted, in the colour of its noise: the accuracy of a net that has learned the law "
        "exactly. It falls where another class gets the largest probability. Crosses: published "
        "accuracies, of 60 000 training images."
    )
    return figure("Accuracy", plot(_alt(kinds, "accuracy"), _X_AXIS, axis, series), note)


def _entropy_plot(kinds: _ByKind) -> Html:
    series = []
    for kind, rows in kinds.items():
        name, colour, x = NAMES[kind], _COLOURS[kind], _ratios(rows)
        series += [
            Series(f"{name}, floor", x, _values(rows, "floor"), f"reference {colour}"),
            Series(name, x, _values(rows, "cross_entropy"), colour, "points"),
        ]
    axis = Axis.over("cross entropy on test images, nats", [v for part in series for v in part.y])
    note = "Dotted: the entropy of the law, the floor of the cross entropy."
    picture = plot(_alt(kinds, "cross_entropy"), _X_AXIS, axis, series)
    return figure("Cross entropy", picture, note)


def _ratios(rows: Sequence[Row]) -> list[float]:
    return [row["noise"]["ratio_of_correct_labels"]["mean"] for row in rows]


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row["test"][name]["mean"] for row in rows]


def _alt(kinds: _ByKind, name: str) -> str:
    ends = {kind: _values(rows, name) for kind, rows in kinds.items()}
    parts = (f"{NAMES[k]} from {number(y[0], 3)} to {number(y[-1], 3)}" for k, y in ends.items())
    return f"{name.replace('_', ' ')} as the share of right labels falls: " + "; ".join(parts)


def _tables(kinds: _ByKind, clean: Mean) -> list[Html]:
    accuracy = [Rows(NAMES[kind], list(map(_accuracy_row, rows))) for kind, rows in kinds.items()]
    law = [Rows(NAMES[kind], list(map(_law_row, rows))) for kind, rows in kinds.items()]
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
