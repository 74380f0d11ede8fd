"""What torchrun starts in R15 and R17, and how; no assertions."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.dist.ranks import run_ranks
from tests.tiny import ROOT
from tests.utils.training_loops import QuietLoop, differences, saved_run, training_loop
from utils import dist_util
from utils.dist_util import process_group
from utils.logger import RunLogger
from utils.machine.launch import read_launch
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, run_main

NEVER = (0, 0)


class _Loop(QuietLoop):
    """Tells every finished step; the doomed rank dies at one step of each of its lives."""

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        os.write(1, b"finished %d\n" % self.step)  # at once: two ranks write here
        doomed_rank, *deadly_steps = map(int, sys.argv[3:])
        life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        if (dist_util.get_rank(), self.step) == (doomed_rank, deadly_steps[life]):
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    say: Callable[[Any], None],
    folder: Path,
    max_step: int,
    loop_class: type[QuietLoop] = QuietLoop,
    logger: RunLogger | None = None,
) -> bool:
    """Trains from ``auto``; returns whether it came to the end."""
    flags = {"dropout": 0.3, "ema_rate": "0.5", "save_interval": 2, "max_step": max_step}
    loop = training_loop(
        folder, loop_class=loop_class, logger=logger, resume_checkpoint="auto", **flags
    )
    return loop.run_loop()


def main() -> int:
    """Trains in the given folder up to the given step."""
    with process_group(read_launch(os.environ)):
        logger = RunLogger(is_quiet=not dist_util.is_main())
        is_done = train(print, Path(sys.argv[1]), int(sys.argv[2]), _Loop, logger)
        return EXIT_DONE if is_done else EXIT_STOPPED


@contextlib.contextmanager
def torchrun(
    folder: Path, max_step: int, doom: tuple[int, ...], *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Two ranks under torchrun; ``doom``: which one kills itself, at which step of each life.

    They are stopped at the end of the block, should they still run.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    work = ["-m", "tests.reliability.launched", folder, max_step, *doom]
    process = subprocess.Popen(
        [*launcher, *options, *map(str, work)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], start: str) -> str:
    """The first line of that start.

    Raises:
        RuntimeError: if the process ends before it says so.
    """
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if line.startswith(start):
            return line
        said.append(line)
    raise RuntimeError(f"it ended early: {''.join(said)}")


def differences_from_a_run_without_a_break(folder: Path, last: int) -> list[str]:
    """What differs at step ``last`` between the run in the folder and one on two ranks at once."""
    whole = folder.with_name("whole")
    if not whole.exists():
        run_ranks(train, whole, last)
    return differences(saved_run(folder, last), saved_run(whole, last))


if __name__ == "__main__":
    run_main(main)
