"""TensorBoard event files, written by the caller itself.

tensorboardX's ``SummaryWriter`` leaves that to a thread: once a full disk has ended it, its queue
fills up and whoever logs waits for ever.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

_SECONDS_BETWEEN_FLUSHES = 30.0


class EventLog:
    """One new event file in a folder; every method raises OSError if the disk takes no more."""

    def __init__(self, folder: str) -> None:
        # a run that is started again within a second must not overwrite the file of the one before,
        # and readers go by the order of the names
        suffix = f".{time.time_ns()}.{secrets.token_hex(4)}"
        self._writer = EventsWriter(os.path.join(folder, "events"), suffix)
        self._flushed = time.monotonic()

    def restart(self, step: int) -> None:
        """Tells readers that steps from this one on come anew: what older files say is dropped."""
        session = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=step, session_log=session))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Appends a number."""
        self._append(summary.scalar(tag, value), step)

    def image(self, tag: str, image_uint8: npt.NDArray[np.uint8], step: int) -> None:
        """Appends one HWC uint8 picture."""
        self._append(summary.image(tag, image_uint8, dataformats="HWC"), step)

    def _append(self, content: Any, step: int) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=content))
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes out what is left."""
        self._writer.close()
