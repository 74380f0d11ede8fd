"""Readers in a process of their own, with little memory: what becomes of each file they are given.

A reader that crashes, hangs or takes gigabytes does so there, and the test says on which file.
The process has the allocator of a training, under which cleared memory counts as soon as it is
taken, whatever ran before it.
"""

from __future__ import annotations

import multiprocessing
import resource
import shlex
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from utils.machine.threads import tune_allocator
from utils.process.errors import CheckpointError, DataError

MAX_SECONDS = 2.0
MAX_BYTES = 200_000_000
_TIMEOUT_SECONDS = 60
# address space beyond what the process has when it starts
_ROOM = 4 << 30


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        message: of the refusal; empty if it was read.
        bug: an error of another kind; empty if there was none.
        seconds: of the CPU.
        num_bytes: by which the process grew.
    """

    message: str
    bug: str
    seconds: float
    num_bytes: int


def outcomes(read: Callable[[bytes], object], payloads: Sequence[bytes]) -> list[Outcome]:
    """What a reader makes of each payload.

    Raises:
        AssertionError: the process died or went on for a minute over one of them.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(read, payloads, sender), daemon=True)
    process.start()
    sender.close()
    found: list[Outcome] = []
    try:
        while len(found) < len(payloads):
            assert receiver.poll(_TIMEOUT_SECONDS), f"no end: {_shown(payloads[len(found)])}"
            found.append(receiver.recv())
    except EOFError:
        process.join()
        raise AssertionError(f"{process.exitcode}: {_shown(payloads[len(found)])}") from None
    finally:
        process.kill()
        process.join()
    return found


def _shown(payload: bytes) -> str:
    return f"{len(payload)} bytes, {payload[:2000]!r}"


def _work(read: Callable[[bytes], object], payloads: Sequence[bytes], sender: Connection) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    tune_allocator()
    warnings.simplefilter("ignore")  # torch finds damaged files strange, and says so
    for payload in payloads:
        sender.send(_outcome(read, payload))


def _outcome(read: Callable[[bytes], object], payload: bytes) -> Outcome:
    before, started = _peak_bytes(), time.process_time()
    message = bug = ""
    try:
        read(payload)
    except (DataError, CheckpointError) as error:
        message = str(error)
    except Exception as error:  # whatever it is, no user should see it
        bug = f"{type(error).__name__}: {error}"[:300]
    return Outcome(message, bug, time.process_time() - started, _peak_bytes() - before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def assert_all_well(
    found: Sequence[Outcome], payloads: Sequence[bytes], *parts: str, most: int = MAX_BYTES
) -> int:
    """Each was read or refused within the limits, by a short message that names the file.

    Args:
        found: by payload.
        payloads: what was read.
        parts: of the file's path; a message must have one of them.
        most: bytes that the process may grow by.

    Returns:
        how many were refused.
    """
    for outcome, payload in zip(found, payloads, strict=True):
        shown = f"{outcome}: {_shown(payload)}"
        assert not outcome.bug, shown
        assert outcome.seconds < MAX_SECONDS and outcome.num_bytes < most, shown
        if outcome.message:
            assert any(part in outcome.message for part in parts), shown
            assert len(outcome.message) < 1500, shown
    return sum(bool(outcome.message) for outcome in found)


def slowest(found: Sequence[Outcome]) -> str:
    """The largest costs, for the figures."""
    seconds = max(outcome.seconds for outcome in found)
    megabytes = max(outcome.num_bytes for outcome in found) / 1e6
    return f"at most {seconds:.1f} s and {megabytes:.0f} MB each"


class Command:
    """Makes a file when it is unpickled by a reader that runs code."""

    def __init__(self, marker: Any) -> None:
        self._command = f"touch {shlex.quote(str(marker))}"

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self._command,)
