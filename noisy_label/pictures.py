"""Pictures of the task for files: mean probabilities by class, and the curves of a sweep."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from utils.files.atomic import write_bytes_atomic

_COLUMNS = 5


def draw_class_probabilities(path: str, content: Mapping[str, Any]) -> None:
    """For the images of each right class: the mean softmax as bars, the mean law as marks.

    Args:
        path: of the PNG.
        content: ``analysis.class_means``.
    """
    kinds = content["classes"]
    num_rows = -(-len(kinds) // _COLUMNS)
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.3 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, _COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for place, ax in enumerate(axes):
        if place >= len(kinds):
            ax.axis("off")
            continue
        softmax, law = content["softmax"][place], content["law"][place]
        ax.bar(range(len(softmax)), softmax, color="tab:blue", label="mean softmax of the net")
        ax.plot(
            range(len(law)),
            law,
            "o",
            color="black",
            mfc="none",
            ms=5,
            label="mean law of the labels",
        )
        ax.set_title(f"images of class {kinds[place]}", fontsize=9)
        ax.set_xticks(range(0, len(law), -(-len(law) // 10)))
        ax.tick_params(labelsize=7)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    figure.supxlabel("class", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    save_figure(figure, path)


def save_figure(figure: Figure, path: str) -> None:
    """Writes a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes_atomic(path, buffer.getvalue())
