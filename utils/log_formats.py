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

from utils.files.atomic import (
    naming_disk_errors,
    read_up_to,
    write_bytes_atomic,
    write_through,
)

Track: TypeAlias = Callable[[Mapping[str, float], int], None]
Row: TypeAlias = dict[str, Any]
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
    """The numbers of a run as a file of rows, one a step.

    Values of one step share a row, which grows. Rows are appended; the whole file is written anew,
    atomically, where a new name needs a column. Rows of an earlier run go on; those beyond the step
    at which a run is resumed are dropped (`forget_after`). What cannot be read as such a row, as
    the last one of a killed run, is left out.
    """

    file_name: ClassVar[str]

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, self.file_name)
        self._last_step: float = math.inf
        # of the last row: what it holds, and where in the file it begins and ends
        self._row: Row = {}
        self._begin = self._end = -1

    def forget_after(self, step: int) -> None:
        """Drop the rows beyond a step, as soon as another one comes."""
        self._last_step, self._end = step, -1

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write values of a step, whole or not at all."""
        if self._end < 0 or _size(self._path) != self._end:
            rows = [row for row in self._stored() if row[STEP] <= self._last_step]
            self._last_step = math.inf
            self._write_all(rows)
        is_same = self._row.get(STEP) == step
        row = {**self._row} if is_same else {STEP: step}
        row |= {name: f"{float(value):.9g}" for name, value in values.items()}
        if not self._has_room_for(row):
            self._write_all([*self._stored()[: -1 if is_same else None], row])
            return
        place = self._begin if is_same else self._end
        self._end = -1  # should the disk refuse it
        line = self._line(row)
        with naming_disk_errors(self._path), open(self._path, "r+b", buffering=0) as file:
            file.seek(place)
            try:
                write_through(self._path, file.fileno(), line)
            finally:
                file.truncate()
        self._row, self._begin, self._end = row, place, place + len(line)

    def _stored(self) -> list[Row]:
        if not os.path.exists(self._path):
            return []
        text = read_up_to(self._path, _MAX_BYTES).decode("utf-8", errors="replace")
        return self._read(text[: text.rfind("\n") + 1])

    def _write_all(self, rows: list[Row]) -> None:
        lines = [self._head(rows), *map(self._line, rows)]
        write_bytes_atomic(self._path, b"".join(lines))
        self._row = rows[-1] if rows else {}
        self._end = sum(map(len, lines))
        self._begin = self._end - len(lines[-1])

    @abstractmethod
    def _read(self, text: str) -> list[Row]:
        """Rows: the step, and each number as text."""

    @abstractmethod
    def _head(self, rows: list[Row]) -> bytes:
        """What comes before these rows."""

    @abstractmethod
    def _line(self, row: Row) -> bytes:
        """A row with its line break."""

    def _has_room_for(self, row: Row) -> bool:
        """Whether what comes before the rows stays as it is."""
        return True


class ProgressTable(Progress):
    """`progress.csv`: a column a name; new names get columns of their own."""

    file_name = CSV_FILE
    _names: list[str]

    def _read(self, text: str) -> list[Row]:
        reader = csv.DictReader(io.StringIO(text))
        rows = [{k: v for k, v in row.items() if k and v} for row in reader]
        return [{**row, STEP: int(row[STEP])} for row in rows if row.get(STEP, "").isdecimal()]

    def _head(self, rows: list[Row]) -> bytes:
        self._names = list(dict.fromkeys([STEP, *(name for row in rows for name in row)]))
        return self._line({name: name for name in self._names})

    def _line(self, row: Row) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._names, lineterminator="\n").writerow(row)
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _has_room_for(self, row: Row) -> bool:
        return row.keys() <= {*self._names}


class ProgressLines(Progress):
    """`progress.json`: a line a step, a JSON object of it; null for what is not finite."""

    file_name = JSON_FILE

    def _read(self, text: str) -> list[Row]:
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
                if isinstance(row, dict) and type(row.get(STEP)) is int:
                    rows.append({k: v if k == STEP else _as_text(v) for k, v in row.items()})
            except (ValueError, OverflowError, RecursionError):
                continue
        return rows

    def _head(self, rows: list[Row]) -> bytes:
        return b""

    def _line(self, row: Row) -> bytes:
        numbers = {name: float(value) for name, value in row.items() if name != STEP}
        shown = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return f"{json.dumps({STEP: row[STEP], **shown})}\n".encode()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _as_text(value: object) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.9g}" if is_number else "nan"


PROGRESS: Mapping[str, type[Progress]] = MappingProxyType({CSV: ProgressTable, JSON: ProgressLines})
