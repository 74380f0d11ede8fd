"""Forked processes, and torchrun, for tests of what several processes do together.

A fork has torch imported already, which saves seconds; it cannot run a backward pass, so training
is tested under the real launcher instead.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.tiny import ROOT

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


def run_torchrun(script: str, argv: Sequence[str], num_processes: int = 2) -> str:
    """What a script prints under torchrun.

    Raises:
        AssertionError: it failed.
    """
    outcome = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(num_processes)]
        + ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
        + [str(ROOT / f"{script}.py"), *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
