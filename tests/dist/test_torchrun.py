"""The real launcher: a signal saves within its grace time, and a rank that dies is started again."""

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

from tests.utils.loops import QuietLoop, differences, saved_run, training_loop
from utils import dist_util
from utils.dist_util import process_group, read_launch
from utils.errors import EXIT_DONE, EXIT_STOPPED, run_main
from utils.logger import RunLogger

pytestmark = [pytest.mark.dist, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
GRACE_SECONDS = 30
FLAGS: dict[str, Any] = {"dropout": 0.3, "ema_rate": "0.5", "resume_checkpoint": "auto"}


class _MortalLoop(QuietLoop):
    """Tells every finished step; rank 1 dies once, at step 4."""

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        print("finished", self.step, flush=True)
        time.sleep(0.01)
        is_first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if self.step == 4 and is_first_life and dist_util.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """What torchrun starts: trains in the given folder up to the given step."""
    folder, max_step, has_death = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dies"
    loop_class = _MortalLoop if has_death else _loop_that_tells()
    with process_group(read_launch(os.environ)):
        logger = RunLogger(is_quiet=not dist_util.is_main())
        flags = {**FLAGS, "save_interval": 2, "max_step": max_step, "logger": logger}
        is_done = training_loop(folder, loop_class=loop_class, **flags).run_loop()
        return EXIT_DONE if is_done else EXIT_STOPPED


def _loop_that_tells() -> type[QuietLoop]:
    class Loop(_MortalLoop):
        """Never dies."""

    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
    return Loop


def _start(*args: str, max_restarts: int = 0) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launcher += ["--standalone", f"--max-restarts={max_restarts}"]
    return subprocess.Popen(
        [*launcher, "-m", "tests.dist.test_torchrun", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _assert_equals_a_run_without_a_break(folder: Path, last: int, run: Callable[..., Any]) -> None:
    run(folder.with_name("whole"), last)
    truth = saved_run(folder.with_name("whole"), last)
    assert differences(saved_run(folder, last), truth) == []


def _run_to_the_end(folder: Path, last: int) -> None:
    process = _start(str(folder), str(last), "lives")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said


def test_signal_to_the_launcher_saves_in_time_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    process = _start(str(tmp_path / "cut"), str(10**6), "lives")
    assert process.stdout is not None
    while (line := process.stdout.readline()) and not line.startswith("finished 5"):
        pass
    assert line, "it ended early"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=2 * GRACE_SECONDS)
    assert time.monotonic() - started < GRACE_SECONDS
    last = max(int(path.stem[5:]) for path in (tmp_path / "cut").glob("model*.pt")) + 2
    _run_to_the_end(tmp_path / "cut", last)
    _assert_equals_a_run_without_a_break(tmp_path / "cut", last, _run_to_the_end)


def test_rank_that_dies_is_started_again_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    process = _start(str(tmp_path / "cut"), "8", "dies", max_restarts=1)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "resumed from" in said
    _assert_equals_a_run_without_a_break(tmp_path / "cut", 8, _run_to_the_end)


if __name__ == "__main__":
    run_main(main)
