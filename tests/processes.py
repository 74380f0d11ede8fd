"""Forked processes for tests of what several of them do together.

A fork has torch imported already, which saves seconds; it cannot run a backward pass, so training
is tested under a real launcher instead.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable

_TIMEOUT_SECONDS = 60.0


def run_together(work: Callable[[int], None], num_processes: int) -> None:
    """Runs ``work(rank)`` in forked processes at once.

    Raises:
        AssertionError: one of them failed or did not end.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank,)) for rank in range(num_processes)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    assert codes == [0] * num_processes, f"exit codes {codes}; None did not end in time"


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
