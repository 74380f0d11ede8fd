"""The real launcher: a signal saves in its grace time, and a rank that dies is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dist.ranks import run_ranks
from tests.utils.loops import QuietLoop, differences, saved_run, training_loop
from utils import dist_util
from utils.dist_util import process_group
from utils.errors import EXIT_DONE, EXIT_STOPPED, run_main
from utils.launch import read_launch
from utils.logger import RunLogger

pytestmark = [pytest.mark.dist, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
GRACE_SECONDS = 30
ENDLESS = 10**6


class _Loop(QuietLoop):
    """Tells every finished step; if asked to, rank 1 dies at step 4 of its first life."""

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        print("finished", self.step, flush=True)
        is_doomed = sys.argv[3] == "dies" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if is_doomed and self.step == 4 and dist_util.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """What torchrun starts: trains in the given folder up to the given step."""
    with process_group(read_launch(os.environ)):
        logger = RunLogger(is_quiet=not dist_util.is_main())
        is_done = train(print, Path(sys.argv[1]), int(sys.argv[2]), _Loop, logger)
        return EXIT_DONE if is_done else EXIT_STOPPED


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


def _start(folder: Path, max_step: int, fate: str, *options: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    return subprocess.Popen(
        [*launcher, *options, "-m", "tests.dist.test_torchrun", str(folder), str(max_step), fate],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _assert_equals_a_run_without_a_break(folder: Path, last: int) -> None:
    whole = folder.with_name("whole")
    run_ranks(train, whole, last)
    assert differences(saved_run(folder, last), saved_run(whole, last)) == []


def test_signal_to_the_launcher_saves_in_time_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    process = _start(tmp_path / "cut", ENDLESS, "lives")
    assert process.stdout is not None
    while (line := process.stdout.readline()) and not line.startswith("finished 5"):
        pass
    assert line, "it ended early"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=2 * GRACE_SECONDS)[0]
    assert time.monotonic() - started < GRACE_SECONDS
    assert "run again with --resume_checkpoint auto" in said
    last = max(int(path.stem[5:]) for path in (tmp_path / "cut").glob("model*.pt")) + 2
    run_ranks(train, tmp_path / "cut", last)
    _assert_equals_a_run_without_a_break(tmp_path / "cut", last)


def test_rank_that_dies_is_started_again_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    process = _start(tmp_path / "cut", 8, "dies", "--max-restarts=1")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "resumed from" in said
    _assert_equals_a_run_without_a_break(tmp_path / "cut", 8)


if __name__ == "__main__":
    run_main(main)
