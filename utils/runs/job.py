"""Work on items that a signal may end between any two of them, for the next run to go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from utils.process.progress import Progress
from utils.process.stop import GO_ON, StopFlag


@dataclass(frozen=True)
class Job:
    """Counts the items that are finished, and raises `StopRequested` when a signal has come."""

    bar: Progress
    stop: StopFlag
    remedy: str

    def done(self, count: int = 1, note: str = "") -> None:
        """Count finished items and `check`; what they leave must be kept by then."""
        self.bar.update(count, note)
        self.check()

    def wait(self, seconds: float) -> bool:
        """Wait for what other processes hold, as long as nobody asks to stop (`each_free`)."""
        self.bar.note("waiting for what other processes hold, or held")
        time.sleep(seconds)
        self.check()
        return True

    def check(self) -> None:
        """Raise `StopRequested` if a signal came."""
        self.stop.check(self.remedy)


@contextlib.contextmanager
def working(
    total: int | None,
    label: str,
    unit: str,
    *,
    done: int = 0,
    is_shown: bool = True,
    stop: StopFlag | None = None,
    remedy: str = GO_ON,
) -> Iterator[Job]:
    """Listen to signals and show the progress of the work inside a `with` block.

    For the first arguments see `Progress`; `stop` is that of a longer work that this is a part of,
    `remedy` what a stopped run tells people to do.
    """
    stop = stop or StopFlag()
    bar = Progress(total, label, unit=unit, done=done, is_shown=is_shown)
    with stop.listening(), bar:
        yield Job(bar, stop, remedy)
