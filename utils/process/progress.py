"""Progress for people: a bar with rate and ETA on a terminal, a line per interval in a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from utils.process.console import show

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_NOTES = 0.2


class Progress:
    """Counts finished units of work towards a total; use it as a context manager.

    On a terminal it is a tqdm bar; elsewhere (a log file, a pipe) it prints a line at most every
    ten seconds, so that logs stay readable.

    Args:
        total: units in all, or None if nobody knows.
        label: what is being done.
        unit: of what is counted.
        done: units finished by an earlier run.
        is_shown: False for silence (every rank but the first).
        has_lines: False where the caller writes lines of its own.
    """

    def __init__(
        self,
        total: int | None,
        label: str,
        *,
        unit: str = "it",
        done: int = 0,
        is_shown: bool = True,
        has_lines: bool = True,
    ) -> None:
        self._label, self._unit, self._total, self._done = label, unit, total, done
        self._start_done, self._start_time = done, time.monotonic()
        self._last_line = self._start_time
        self._note, self._part = "", 0.0
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_line_mode = is_shown and has_lines and not is_terminal
        self._bar: tqdm[Any] | None = None
        if is_shown and is_terminal:
            self._bar = tqdm(total=total, desc=label, unit=unit, initial=done, dynamic_ncols=True)

    def update(self, count: int = 1, note: str = "") -> None:
        """Add finished units; `note` is shown behind the rate."""
        self._done += count
        self._note = note or ("" if self._part else self._note)
        self._part = 0.0
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._is_line_mode:
            self._print_line_in_time()

    def note(self, text: str, part: float = 0.0) -> None:
        """Say how far the next units are, `part` of one or several being done already."""
        self._note, self._part = text, part
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_NOTES:
                self._last_line = time.monotonic()
                self._bar.refresh()
        elif self._is_line_mode:
            self._print_line_in_time()

    def skip(self, count: int) -> None:
        """Add units that an earlier run has finished, which say nothing of the rate."""
        self._done += count
        self._start_done += count
        if self._bar is not None:
            self._bar.initial += count
            self._bar.last_print_n += count
            self._bar.n += count

    def write(self, line: str) -> None:
        """Print a line without tearing the bar."""
        show(line, sys.stdout, tqdm.write)

    def _print_line_in_time(self) -> None:
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._start_time
        done = self._done + self._part
        rate = (done - self._start_done) / max(elapsed, 1e-9)
        rest = "no end known"
        if self._total is not None and rate > 0:
            rest = f"{(self._total - done) / rate:.0f} s left"
        show(
            f"{self._label}: {self._done}/{self._total or '?'} {self._unit}, "
            f"{rate:.3g} {self._unit}/s, "
            f"{rest} {self._note}".rstrip(),
            sys.stderr,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._is_line_mode and self._done > self._start_done:
            self._print_line()
