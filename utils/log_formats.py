"""What a log is written as besides its lines: `progress.csv`, `progress.json`, a user's tracker.

`OPENAI_LOG_FORMAT` chooses, as in improved-diffusion: some of stdout, log, csv, json and
tensorboard, comma separated. `RUN_TRACKER` names an entry point of the group
`conditional_risk_sr.trackers` that an installed package offers: `start(log_dir, args)`, which
returns a callable `(values, step)`, called with all that goes to TensorBoard.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

from utils.files.atomic import read_up_to, write_text_atomic

Track: TypeAlias = Callable[[Mapping[str, float], int], None]
StartTracker: TypeAlias = Callable[[str, Mapping[str, Any]], Track]

FORMAT_VARIABLE, TRACKER_VARIABLE = "OPENAI_LOG_FORMAT", "RUN_TRACKER"
TRACKER_GROUP = "conditional_risk_sr.trackers"
STDOUT, LOG, CSV, JSON, TENSORBOARD = FORMATS = ("stdout", "log", "csv", "json", "tensorboard")
DEFAULT_FORMATS = frozenset({STDOUT, LOG, TENSORBOARD})
CSV_FILE, JSON_FILE, STEP = "progress.csv", "progress.json", "step"
_MAX_BYTES = 1 << 30


def chosen_formats(environ: Mapping[str, str]) -> frozenset[str]:
    """The formats of `OPENAI_LOG_FORMAT`; without it all but csv and json.

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


class Progress(ABC):
    """The numbers of a run as a file of rows, one a step, which holds whole rows at any time.

    Values of one step share a row. Rows of an earlier run go on; those beyond the step at which a
    run is resumed are dropped (`forget_after`). What cannot be read as such a file is replaced.
    """

    file_name: ClassVar[str]

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, self.file_name)
        self._rows: list[dict[str, Any]] = []
        if os.path.exists(self._path):
            text = read_up_to(self._path, _MAX_BYTES).decode("utf-8", errors="replace")
            self._rows = self._read(text)

    def forget_after(self, step: int) -> None:
        """Drop the rows beyond a step."""
        self._rows = [row for row in self._rows if row[STEP] <= step]

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write values of a step, whole or not at all."""
        if not self._rows or self._rows[-1][STEP] != step:
            self._rows.append({STEP: step})
        self._rows[-1].update({name: f"{float(value):.9g}" for name, value in values.items()})
        write_text_atomic(self._path, self._text())

    @abstractmethod
    def _read(self, text: str) -> list[dict[str, Any]]:
        """Rows: the step, and each number as text."""

    @abstractmethod
    def _text(self) -> str:
        """The whole file."""


class ProgressTable(Progress):
    """`progress.csv`: a column a name; new names get columns of their own."""

    file_name = CSV_FILE

    def _read(self, text: str) -> list[dict[str, Any]]:
        reader = csv.DictReader(io.StringIO(text))
        rows = [{k: v for k, v in row.items() if k and v} for row in reader]
        return [{**row, STEP: int(row[STEP])} for row in rows if row.get(STEP, "").isdecimal()]

    def _text(self) -> str:
        names = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        return text.getvalue()


class ProgressLines(Progress):
    """`progress.json`: a line a step, a JSON object of it; null for what is not finite."""

    file_name = JSON_FILE

    def _read(self, text: str) -> list[dict[str, Any]]:
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
                if isinstance(row, dict) and type(row.get(STEP)) is int:
                    rows.append({k: v if k == STEP else _as_text(v) for k, v in row.items()})
            except (ValueError, OverflowError, RecursionError):
                continue
        return rows

    def _text(self) -> str:
        return "".join(f"{json.dumps(self._line(row))}\n" for row in self._rows)

    def _line(self, row: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {name: float(value) for name, value in row.items() if name != STEP}
        shown = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {STEP: row[STEP], **shown}


def _as_text(value: object) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.9g}" if is_number else "nan"


PROGRESS: Mapping[str, type[Progress]] = MappingProxyType({CSV: ProgressTable, JSON: ProgressLines})
