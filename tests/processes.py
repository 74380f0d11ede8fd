"""Several processes, and torchrun, for tests of what they do together.

A fork has torch imported already, which saves seconds; one of the test's own process cannot run a
backward pass, so training is tested under the real launcher instead.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.reliability.extent import is_full
from tests.tiny import ROOT
from tests.utils.processes import Child
from utils.process.errors import EXIT_DONE

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


def run_script_together(script: str, argv: Sequence[str], num_processes: int = 2) -> None:
    """Runs a script in several processes: under torchrun where the long forms run, else without it.

    Raises:
        AssertionError: one of them failed or did not end.
    """
    if is_full():
        run_torchrun(script, argv, num_processes)
        return
    places = [launch_environment(rank, num_processes) for rank in range(num_processes)]
    port = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = [Child(run_script, script, list(argv), place | port) for place in places]
    codes = [child.exit_code() for child in children]
    assert codes == [EXIT_DONE] * num_processes


def launch_environment(rank: int, num_processes: int) -> dict[str, str]:
    """What a launcher of one machine tells a process of its place."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes}
    return {name: str(value) for name, value in place.items()}


def run_script(
    say: Callable[[Any], None], script: str, argv: list[str], environment: Mapping[str, str]
) -> int:
    """The work of a process: a script in an environment that has these variables, too."""
    os.environ |= environment
    code: int = importlib.import_module(script).main(argv)
    return code


def free_port() -> int:
    """A TCP port that nobody listens on, below those that the system gives to other sockets.

    The first thousand from 20000 on are left to the jobs of the tests' Slurm, which meet at 20000
    and their number.
    """
    while True:
        port = random.SystemRandom().randrange(21_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
