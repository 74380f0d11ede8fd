"""One run's log: `logs.txt`, TensorBoard events and `args.json` of one folder.

A logger is an object that the script makes and hands on; there is no global one. It knows nothing
of ranks or training: a process that should stay silent gets a logger without a folder. A disk that
fills up, under the folder or under what the process prints to, ends the log and not the run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from utils.files.atomic import write_json_atomic
from utils.files.storage import make_folder
from utils.log_formats import (
    DEFAULT_FORMATS,
    LOG,
    PROGRESS,
    STDOUT,
    TENSORBOARD,
    TRACKER_VARIABLE,
    Progress,
    StartTracker,
    Track,
)
from utils.process.console import show

_SECONDS_BETWEEN_FLUSHES = 30.0


class RunLogger:
    """Writes lines, scalars and pictures of a run.

    Without a folder it writes no file; `is_quiet` prints nothing either (every rank but the first).
    `log` receives what else would be printed. `formats` are those of `utils.log_formats`, all but
    csv and json by default. Where no folder can be it raises as `make_folder`.
    """

    def __init__(
        self,
        log_dir: str | None = None,
        *,
        is_quiet: bool = False,
        log: Callable[[str], None] | None = None,
        formats: Collection[str] = DEFAULT_FORMATS,
    ) -> None:
        self.log_dir = log_dir
        self._is_quiet, self._log = is_quiet or STDOUT not in formats, log
        self._has_events = TENSORBOARD in formats
        self._track: Track | None = None
        self._progress: list[Progress] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._events: Any = None
        self._flushed = time.monotonic()
        self._last_step: int | None = None
        self._file = None
        self._has_failed = False
        self._reminders: list[str] = []
        if log_dir is not None:
            make_folder(log_dir, "--log_dir")
            self._progress = [make(log_dir) for name, make in PROGRESS.items() if name in formats]
        if log_dir is not None and LOG in formats:
            path = os.path.join(log_dir, "logs.txt")
            # names of files may hold what UTF-8 lacks
            self._file = open(  # noqa: SIM115 - see close
                path, "a", encoding="utf-8", errors="backslashreplace", buffering=1
            )

    def info(self, line: str) -> None:
        """Print a line and append it, with the time, to `logs.txt`."""
        if self._log is not None:
            self._log(line)
        elif not self._is_quiet:
            show(line, sys.stdout, tqdm.write)
        self.note(line)

    def remind(self, line: str) -> None:
        """Print a line now and once more at the end, where nobody overlooks it."""
        self.info(line)
        self._reminders.append(line)

    def note(self, line: str) -> None:
        """Append a line to `logs.txt` without printing it."""
        if self._file is not None:
            with self._surviving("logs.txt"):
                self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def write_args(self, args: Mapping[str, object], file_name: str = "args.json") -> None:
        """Write what the run was started with."""
        if self.log_dir is not None:
            write_json_atomic(os.path.join(self.log_dir, file_name), dict(args))

    def add(self, key: str, value: torch.Tensor | float) -> None:
        """Add a value to the running mean of `key`; a tensor stays on its device, detached."""
        tensor = torch.as_tensor(value, dtype=torch.float32).detach()
        self._sums[key] = self._sums[key] + tensor if key in self._sums else tensor.clone()
        self._counts[key] = self._counts.get(key, 0) + 1

    def take_means(self) -> tuple[list[str], torch.Tensor]:
        """The running means as one tensor (on the device, for one transfer), and forgets them."""
        keys = sorted(self._sums)
        if not keys:
            return [], torch.zeros(0)
        device = next((s.device for s in self._sums.values() if s.device.type != "cpu"), None)
        means = torch.stack([(self._sums[k] / self._counts[k]).to(device) for k in keys])
        self._sums, self._counts = {}, {}
        return keys, means

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers to TensorBoard, to `progress.csv` or `.json`, and to a tracker."""
        if self.log_dir is None:
            return
        for file in self._progress:
            with self._surviving(file.file_name):
                file.add(values, step)
        if self._track is not None:
            self._call_tracker(values, step)
        if not self._has_events:
            return
        from tensorboardX import summary

        for key, value in values.items():
            self._send(step, summary=summary.scalar(key, value))

    def image(self, tag: str, image_uint8: npt.NDArray[np.uint8], step: int) -> None:
        """Send one HWC uint8 picture to TensorBoard."""
        if self.log_dir is None or not self._has_events:
            return
        from tensorboardX import summary

        self._send(step, summary=summary.image(tag, image_uint8, dataformats="HWC"))

    def forget_after(self, step: int) -> None:
        """Let TensorBoard drop what an earlier run sent to this folder for steps beyond `step`.

        `progress.csv` and `progress.json` drop it, too. To be called before anything is sent;
        nothing happens unless something is.
        """
        self._last_step = step
        for file in self._progress:
            file.forget_after(step)

    def track(self, start: StartTracker, args: Mapping[str, Any]) -> None:
        """Hand all numbers to a tracker from now on; one that fails ends itself, not the run."""
        if self.log_dir is None:
            return
        try:
            self._track = start(self.log_dir, args)
        except Exception as error:  # code of somebody else, which may raise whatever it wants
            self.info(f"warning: the tracker of {TRACKER_VARIABLE} does not start: {error}")

    def _call_tracker(self, values: Mapping[str, float], step: int) -> None:
        assert self._track is not None
        try:
            self._track(values, step)
        except Exception as error:  # as above
            self._track = None
            self.info(f"warning: the tracker of {TRACKER_VARIABLE} has failed, and ends: {error}")

    def _send(self, step: int, **content: Any) -> None:
        """Write an event itself: tensorboardX's `SummaryWriter` leaves that to a thread.

        Once a full disk has ended the thread, its queue fills up and whoever logs waits for ever.
        """
        if self.log_dir is None or self._has_failed:
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        with self._surviving("TensorBoard events"):
            if self._events is None:
                # a run that is started again within a second must not overwrite the file of the
                # one before, and readers go by the order of the names
                suffix = f".{time.time_ns()}.{secrets.token_hex(4)}"
                self._events = EventsWriter(os.path.join(self.log_dir, "events"), suffix)
            if self._last_step is not None:
                start, first = SessionLog(status=SessionLog.START), self._last_step + 1
                event = Event(wall_time=time.time(), step=first, session_log=start)
                self._events.write_event(event)
                self._last_step = None
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
                self._events.flush()
                self._flushed = time.monotonic()

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Say once that the disk refused; an event file may have ended in mid-record then."""
        try:
            yield
        except OSError as error:
            events, self._events = self._events, None
            if events is not None:
                with contextlib.suppress(OSError):
                    events.close()
            if not self._has_failed:
                self._has_failed = True
                show(
                    f"warning: cannot write {what} in {self.log_dir} ({error.strerror}); the run "
                    "goes on without. Free some space there",
                    sys.stderr,
                )

    def close(self) -> None:
        """Say the reminders; flush and close the files."""
        for line in self._reminders:
            self.info(line)
        self._reminders = []
        with self._surviving("logs"):
            if self._events is not None:
                self._events.close()
                self._events = None
        with self._surviving("logs"):
            if self._file is not None:
                self._file.close()
                self._file = None
