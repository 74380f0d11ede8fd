"""Several trainings side by side: curves in one picture, last and best values in a table.

What a run logged is read from its TensorBoard events, by TensorBoard's own reader: steps that a
resumed run made anew count once.
"""

from __future__ import annotations

import csv
import io
import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.files.atomic import JsonObject, atomic_write, write_text_atomic
from utils.files.records import find_record
from utils.process.errors import DataError

Floats = npt.NDArray[np.float64]
LOSS, RATE, VALIDATION = "loss", "samples_per_second", "val/"
_LOSSES = (LOSS, "val/loss")
# metric of a validation → whether more of it is better; of the others 1, or a share, is right
_IS_MORE_BETTER = {"val/loss": False, "val/nll": False, "val/psnr": True}
_TITLES = {
    "loss": "training loss",
    "val/loss": "validation: loss",
    "val/psnr": "validation: PSNR, dB",
    "val/nll": "validation: negative log-likelihood, nats",
    "val/z2": "validation: mean of error² / variance (1 is right)",
    "val/coverage": "validation: share between the outer levels",
}
# Okabe and Ito's colours, which people who see few colours tell apart, without the yellow one
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", ":", "-.")
# flags that say where a run lies, or how it was started
_PLACES = {"log_dir", "model_save_dir", "resume_checkpoint", "init_from", "run_time", "dry_run"}
_SHARE_OF_END = 0.1


@dataclass(frozen=True)
class Curve:
    """One metric of a run: finite values at ascending steps, (n,) each."""

    steps: Floats
    values: Floats

    @property
    def end(self) -> float:
        """Mean of the values of the last tenth of the steps: single ones are noisy."""
        is_late = self.steps >= self.steps[-1] - _SHARE_OF_END * (self.steps[-1] - self.steps[0])
        return float(self.values[is_late].mean())

    def best(self, *, is_more_better: bool) -> tuple[int, float]:
        """Step and value of the best one, the first of equals."""
        place = int(self.values.argmax() if is_more_better else self.values.argmin())
        return int(self.steps[place]), float(self.values[place])

    def smoothed(self) -> Floats:
        """Means over the points around each, a tenth of all; at the ends over those on one side."""
        half = len(self.values) // 20
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        places = np.arange(len(self.values))
        starts = np.maximum(places - half, 0)
        stops = np.minimum(places + half + 1, len(self.values))
        return np.asarray((sums[stops] - sums[starts]) / (stops - starts))


@dataclass(frozen=True)
class Run:
    """What a training logged, by tag, and the flags it had (empty if they are not known)."""

    name: str
    curves: Mapping[str, Curve]
    flags: Mapping[str, object]

    @property
    def objective(self) -> str:
        """What the training minimised, where its script has several; losses differ by it."""
        return str(self.flags.get("objective") or self.flags.get("loss") or "")

    @property
    def steps(self) -> int:
        """The last step of which something was logged."""
        return int(max(curve.steps[-1] for curve in self.curves.values()))


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs of log folders, in their order; a name is what tells a folder from the others.

    Raises:
        DataError: a folder is not there, named twice, or no training has logged anything there.
    """
    real = [os.path.realpath(folder) for folder in folders]
    for folder, path in zip(folders, real, strict=True):
        if real.count(path) > 1:
            raise DataError(f"{folder} is named twice; name each run once")
    return [
        Run(name, _read_curves(folder), _read_flags(folder))
        for name, folder in zip(_names(real), folders, strict=True)
    ]


def _names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [Path(path).parts for path in paths]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-number:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _read_curves(folder: str) -> dict[str, Curve]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder; name the --log_dir of a training")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every file it reads
    # all scalars; of what is large next to nothing
    sizes = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}
    events = EventAccumulator(folder, size_guidance=sizes)
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        finite = sorted((step, value) for step, value in found if math.isfinite(value))
        if finite:
            steps, values = np.asarray(finite, np.float64).T
            curves[tag] = Curve(steps, values)
    if LOSS not in curves:
        raise DataError(
            f"{folder} holds no curve of a training's loss; name the --log_dir of a training"
        )
    return curves


def _read_flags(folder: str) -> JsonObject:
    """The flags of the training; other scripts write their `args.json` to its folder, too."""
    own = sorted(Path(folder).glob("args_*_train.json"))
    content = find_record(own[-1] if own else Path(folder) / "args.json", dict) or {}
    flags = content.get("flags")
    return flags if isinstance(flags, dict) else {}


def table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """(heads, a row a run) of the metrics that any of the runs has; a missing one is empty."""
    tags = _tags(runs)
    heads = ["run", "steps", "images/s", "loss, end"]
    for tag in tags[1:]:
        heads.append(f"{tag}, last")
        if tag in _IS_MORE_BETTER:
            heads += [f"{tag}, best", "at step"]
    rows = []
    for run in runs:
        rate = run.curves.get(RATE)
        row = [run.name, str(run.steps), _number(float(np.median(rate.values)) if rate else None)]
        row.append(_number(run.curves[LOSS].end))
        for tag in tags[1:]:
            curve = run.curves.get(tag)
            row.append(_number(None if curve is None else float(curve.values[-1])))
            if tag not in _IS_MORE_BETTER:
                continue
            if curve is None:
                row += ["", ""]
                continue
            step, value = curve.best(is_more_better=_IS_MORE_BETTER[tag])
            row += [_number(value), str(step)]
        rows.append(row)
    return heads, rows


def _tags(runs: Sequence[Run]) -> list[str]:
    """What is shown, in the order of `_TITLES`: the loss, and whatever was validated."""
    there = {tag for run in runs for tag in run.curves if tag.startswith(VALIDATION)}
    known = [tag for tag in _TITLES if tag in there]
    return [LOSS, *known, *sorted(there.difference(known))]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def table_text(runs: Sequence[Run]) -> str:
    """The table with a line a metric and a column a run, and the flags in which they differ."""
    heads, rows = table(runs)
    columns = [heads, *rows]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        first, *rest = cells
        numbers = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    differing = different_flags(runs)
    if differing:
        lines.append("flags that differ:")
        lines += [f"  --{name}: {' | '.join(values)}" for name, values in differing.items()]
    return "\n".join(lines)


def different_flags(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Flag → its value in each run, where they differ, but for folders; `-` where it has none."""
    if not all(run.flags for run in runs):
        return {}
    names = sorted({name for run in runs for name in run.flags} - _PLACES)
    values = {name: [_shown(run.flags, name) for run in runs] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _shown(flags: Mapping[str, object], name: str) -> str:
    if name not in flags:
        return "-"
    text = str(flags[name])
    return text if len(text) <= 60 else f"…{text[-59:]}"


def write_table(path: str, runs: Sequence[Run]) -> None:
    """The table as CSV, a row a run."""
    heads, rows = table(runs)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    write_text_atomic(path, text.getvalue())


def draw_runs(path: str, runs: Sequence[Run]) -> None:
    """A panel a metric: each run's curve, smoothed over the points behind it; dots are the best.

    Runs of different objectives have panels of their own for their losses.
    """
    panels = _panels(runs)
    num_columns = min(2, len(panels))
    num_rows, legend_rows = math.ceil(len(panels) / num_columns), math.ceil(len(runs) / 2)
    size = (6.2 * num_columns, 3.4 * num_rows + 0.25 * legend_rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    looks: list[tuple[str, Any]] = [
        (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)])
        for i in range(len(runs))
    ]
    for axes, panel in itertools.zip_longest(
        figure.subplots(num_rows, num_columns, squeeze=False).flat, panels
    ):
        if panel is None:
            axes.set_visible(False)
        else:
            tag, objective = panel
            _draw_panel(axes, tag, objective, list(zip(runs, looks, strict=True)))
    handles = [Line2D([], [], color=colour, linestyle=style) for colour, style in looks]
    names = [run.name for run in runs]
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(2, len(runs)), frameon=False
    )
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _panels(runs: Sequence[Run]) -> list[tuple[str, str | None]]:
    """(metric, objective of the runs to show; None: all) of each panel."""
    objectives = list(dict.fromkeys(run.objective for run in runs))
    rest: list[tuple[str, str | None]] = [(tag, None) for tag in _tags(runs)]
    if len(objectives) == 1:
        return rest
    panels: list[tuple[str, str | None]] = []
    for objective in objectives:
        own = [run for run in runs if run.objective == objective]
        panels += [(tag, objective) for tag in _LOSSES if any(tag in run.curves for run in own)]
    return panels + [(tag, None) for tag, _ in rest if tag not in _LOSSES]


def _draw_panel(
    axes: Axes, tag: str, objective: str | None, looks: Sequence[tuple[Run, tuple[str, Any]]]
) -> None:
    shown = []
    for run, (colour, style) in looks:
        curve = run.curves.get(tag)
        if curve is None or objective not in (None, run.objective):
            continue
        if tag == LOSS:
            axes.plot(curve.steps, curve.values, color=colour, alpha=0.25, linewidth=0.7)
        line = curve.smoothed() if tag == LOSS else curve.values
        axes.plot(curve.steps, line, linewidth=1.5, color=colour, linestyle=style)
        if tag in _IS_MORE_BETTER:
            step, value = curve.best(is_more_better=_IS_MORE_BETTER[tag])
            axes.plot([step], [value], "o", color=colour, markersize=5)
        shown.append(line[len(line) // 20 :])
    low, high = min(map(np.min, shown)), max(map(np.max, shown))
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)  # the first steps would flatten all others
    if tag == "val/z2" and low < 1 < high:
        axes.axhline(1.0, color="#999999", linewidth=0.8, zorder=0)
    axes.set_title(_TITLES.get(tag, tag) + (f" ({objective})" if objective else ""), fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
