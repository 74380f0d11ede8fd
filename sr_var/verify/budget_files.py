"""Writes the error budget: ``budget.json``, which the report shows, and ``budget.png``.

The rows come from ``budget``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sr_var.flags.oracle import BudgetFlags
from sr_var.verify.belonging import origins
from sr_var.verify.budget import budget_table, error_budget
from utils.files.atomic import atomic_write, write_json_atomic
from utils.files.json import is_number, read_json
from utils.logger import RunLogger

BUDGET_FILE = "budget.json"


def write_budget(flags: BudgetFlags, logger: RunLogger) -> bool:
    """The whole job: rows, table, files.

    Returns:
        False if a signal stopped it.
    """
    rows = error_budget(flags, logger.info)
    if rows is None:
        return False
    logger.info("\n" + budget_table(rows))
    if flags.dry_run:
        logger.info("dry run of one image: nothing was written")
        return True
    content = {"budget": list(rows), "of": origins(flags)}
    write_json_atomic(os.path.join(flags.log_dir, BUDGET_FILE), content)
    draw_budget(os.path.join(flags.log_dir, "budget.png"), rows)
    logger.info(f"budget: {flags.log_dir}/{BUDGET_FILE} and budget.png")
    return True


def read_budget(
    log_dir: str, of: Mapping[str, Any] | None = None, log: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """The rows that ``oracle_budget.py`` left in a folder; none if it did not run there.

    Args:
        log_dir: the folder.
        of: ``belonging.origins`` of what the rows are to be shown with; rows of other results are
            left out. None takes them as they are.
        log: receives a notice of rows that are left out.
    """
    path = os.path.join(log_dir, BUDGET_FILE)
    try:
        content = read_json(path)
        rows = [row for row in content["budget"] if isinstance(row, dict) and _is_row(**row)]
        made_of = content.get("of")
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if of is not None and made_of not in (None, of):
        log(
            f"notice: {path} is of other nets or images and is left out; run oracle_budget.py with "
            "the flags of this verification"
        )
        return []
    return rows


def _is_row(row: object = None, **figures: object) -> bool:
    return row is not None and all(value is None or is_number(value) for value in figures.values())


def draw_budget(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Two bar charts on logarithmic scales: errors of the mean and of the variance."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 0.5 * len(rows) + 1.6), layout="constrained")
        parts = (
            ("relative_mse", "squared error of the mean / mean variance, %"),
            ("relative_var_error", "rms error of the variance, relative, %"),
        )
        axes = figure.subplots(1, 2, sharey=True)
        names = [row["row"] for row in rows]
        for ax, (key, title) in zip(axes, parts, strict=True):
            values = [100 * max(row[key] or 0.0, 0.0) for row in rows]
            bars = ax.barh(names, values, color="#3b6fb6")
            labels = [
                f"{value:.2g}" if row[key] is not None else ""
                for row, value in zip(rows, values, strict=True)
            ]
            ax.bar_label(bars, labels, padding=3)
            ax.set_xscale("symlog", linthresh=0.1)
            ax.set_xlim(0, 4 * max(*values, 0.1))
            ax.set_title(title, fontsize=9)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=120)
