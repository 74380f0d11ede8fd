"""What a log is written as besides its lines: `progress.csv`, and a tracker of the user's.

`OPENAI_LOG_FORMAT` chooses, as in improved-diffusion: some of stdout, log, csv and tensorboard,
comma separated. `RUN_TRACKER` names an entry point of the group `conditional_risk_sr.trackers`
that an installed package offers: `start(log_dir, args)`, which returns a callable
`(values, step)`, called with all that goes to TensorBoard.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeAlias

from utils.files.atomic import read_up_to, write_text_atomic

Track: TypeAlias = Callable[[Mapping[str, float], int], None]
StartTracker: TypeAlias = Callable[[str, Mapping[str, Any]], Track]

FORMAT_VARIABLE, TRACKER_VARIABLE = "OPENAI_LOG_FORMAT", "RUN_TRACKER"
TRACKER_GROUP = "conditional_risk_sr.trackers"
STDOUT, LOG, CSV, TENSORBOARD = FORMATS = ("stdout", "log", "csv", "tensorboard")
DEFAULT_FORMATS = frozenset({STDOUT, LOG, TENSORBOARD})
CSV_FILE, STEP = "progress.csv", "step"
_MAX_BYTES = 1 << 30


def chosen_formats(environ: Mapping[str, str]) -> frozenset[str]:
    """The formats of `OPENAI_LOG_FORMAT`; without it all but csv.

    Raises:
        ValueError: it names something else.
    """
    text = environ.get(FORMAT_VARIABLE, "")
    names = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(names - {*FORMATS}):
        raise ValueError(
            f"{FORMAT_VARIABLE}={text}: there is no {', '.join(unknown)}; give some of "
            f"{','.join(FORMATS)}"
        )
    return frozenset(names) or DEFAULT_FORMATS


def chosen_tracker(environ: Mapping[str, str]) -> StartTracker | None:
    """The tracker that `RUN_TRACKER` names; None without it.

    Raises:
        ValueError: no installed package offers it, or it cannot be loaded.
    """
    name = environ.get(TRACKER_VARIABLE, "")
    if not name:
        return None
    offered = {point.name: point for point in entry_points(group=TRACKER_GROUP)}
    if name not in offered:
        raise ValueError(
            f"{TRACKER_VARIABLE}={name}: no installed package offers this entry point of the group "
            f"{TRACKER_GROUP}; there are {', '.join(sorted(offered)) or 'none'}"
        )
    try:
        start: StartTracker = offered[name].load()
    except Exception as error:  # code of somebody else, which may raise whatever it wants
        raise ValueError(f"{TRACKER_VARIABLE}={name} cannot be loaded: {error}") from error
    return start


class ProgressTable:
    """`progress.csv`: a row a step, a column a name; new names get columns of their own.

    Values of one step share a row. Rows of an earlier run go on; those beyond the step at which a
    run is resumed are dropped (`forget_after`).
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, CSV_FILE)
        self._names = [STEP]
        self._rows: list[dict[str, str]] = []
        if os.path.exists(self._path):
            text = read_up_to(self._path, _MAX_BYTES).decode("utf-8", errors="replace")
            reader = csv.DictReader(io.StringIO(text))
            if STEP in (reader.fieldnames or ()):
                self._names = [name for name in reader.fieldnames or () if name]
            rows = [{k: v for k, v in row.items() if k and v} for row in reader]
            self._rows = [row for row in rows if row.get(STEP, "").isdecimal()]

    def forget_after(self, step: int) -> None:
        """Drop the rows beyond a step."""
        self._rows = [row for row in self._rows if int(row[STEP]) <= step]

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write values of a step, whole or not at all."""
        if not self._rows or int(self._rows[-1][STEP]) != step:
            self._rows.append({STEP: str(step)})
        self._rows[-1].update({name: f"{float(value):.9g}" for name, value in values.items()})
        self._names += [name for name in values if name not in self._names]
        text = io.StringIO()
        writer = csv.DictWriter(text, self._names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text_atomic(self._path, text.getvalue())
