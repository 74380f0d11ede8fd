"""Requests to stop: signals and a time budget become a flag that loops read at step boundaries."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# what a stopped script says of the next one: it goes on, or does everything again
GO_ON, ANEW = "run again to go on", "run again"
_SECONDS_BETWEEN_LOOKS = 2.0
_is_first_last = False


class StopRequested(Exception):
    """A script was asked to stop, and what is finished is kept; the message says how to go on."""


def go_on_with(flags: str) -> str:
    """Say how to go on where that needs flags, as in `--output_dir x`."""
    return f"run again with {flags} to go on"


def stop_line(reason: str = "", remedy: str = GO_ON, where: str = "") -> str:
    """Return what a script says that was stopped `where`, as in `at step 5`, by a `StopFlag`."""
    told = f" ({reason})" if reason else ""
    return f"stopped{where and ' ' + where}{told}; {remedy}"


def first_stop_is_last() -> None:
    """Let a process that was asked to stop ignore signals behind its loop, too, until it ends.

    For scripts: theirs is the process. A second signal, as launchers send it, would end it with
    the signal in place of its exit code.
    """
    global _is_first_last
    _is_first_last = True


def leave_signals_to_parent() -> None:
    """For a helper process: nothing stops it but SIGTERM, or the end, of the one that started it.

    Launchers send signals to whole groups, and the parent needs its helpers until it has stopped in
    order. Where it dies of an error, multiprocessing sends SIGTERM to those that are left, and
    waits for ever if they do not hear it. On systems that do not tell who sent a signal (macOS)
    SIGTERM does what it did, and nobody looks after the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigtimedwait"):
        # held back in every thread, it goes to the one that waits for it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    told = None
    # a parent that was killed while it started this process is one that torch does not miss
    while parent.is_alive() and (told is None or told.si_pid != parent.pid):
        told = signal.sigtimedwait({signal.SIGTERM}, _SECONDS_BETWEEN_LOOKS)
    os._exit(0)


class StopFlag:
    """Set by SIGTERM, SIGINT, SIGUSR1 or when `run_time_hours` (if positive) have passed.

    A second signal changes nothing: the loop is already on its way out. Behind the loop it does
    what it did before it, but see `first_stop_is_last`.
    """

    def __init__(self, run_time_hours: float = -1.0) -> None:
        self._deadline = time.monotonic() + run_time_hours * 3600 if run_time_hours > 0 else None
        self._signal_name = ""

    @property
    def reason(self) -> str:
        """Why to stop; empty while there is no reason."""
        if self._signal_name:
            return self._signal_name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "run_time has passed"
        return ""

    def check(self, remedy: str = GO_ON) -> None:
        """Raise `StopRequested` if there is a reason to stop; see `stop_line`."""
        if self.reason:
            raise StopRequested(stop_line(self.reason, remedy))

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Install the handlers for the duration of a `with` block (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            if self._signal_name and _is_first_last:
                old = dict.fromkeys(old, signal.SIG_IGN)
            for number, handler in old.items():
                # None: it was not set by Python, which cannot set it again either
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal_name = f"received {signal.Signals(number).name}"
