"""R17: when a rank dies the others end soon; ``--max-restarts 1`` resumes to the same bits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.reliability import launched
from tests.reliability.extent import extent
from tests.reliability.launched import (
    differences_from_a_run_without_a_break,
    torchrun,
    wait_for_line,
)
from tests.utils.training_loops import QuietLoop, training_loop
from utils import dist_util
from utils.process.errors import EXIT_DONE, EXIT_STOPPED

pytestmark = pytest.mark.dist

MAX_SECONDS = 60
LAST_STEP = 8


class _DoomedLoop(QuietLoop):
    """Rank 1 dies at step 3."""

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        if self.step == 3 and not dist_util.is_main():
            os._exit(9)


def train(say: Callable[[Any], None], folder: Path) -> int:
    """Trains without an end."""
    loop = training_loop(folder, loop_class=_DoomedLoop, max_step=10**6)
    return EXIT_DONE if loop.run_loop() else EXIT_STOPPED


def test_rank_that_dies_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    started = time.monotonic()
    children = start_ranks(train, tmp_path)
    codes = exit_codes(children)
    assert codes[1] == 9 and codes[0] not in (EXIT_DONE, EXIT_STOPPED)
    assert time.monotonic() - started < MAX_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0][: extent(1, 2)])
def test_rank_killed_under_torchrun_is_restarted_exactly_or_ends_the_run(
    tmp_path: Path, figure: Callable[[str], None], rank: int
) -> None:
    """Killed at step 4 and, after the one restart that it may have, at step 6."""
    with torchrun(tmp_path / "cut", LAST_STEP, (rank, 4, 6), "--max-restarts=1") as process:
        wait_for_line(process, "resumed from")
        wait_for_line(process, "finished 6")
        died = time.monotonic()
        process.communicate(timeout=MAX_SECONDS)
    seconds = time.monotonic() - died
    assert process.returncode == 1
    run_ranks(launched.train, tmp_path / "cut", LAST_STEP)
    assert differences_from_a_run_without_a_break(tmp_path / "cut", LAST_STEP) == []
    figure(f"rank {rank} killed: restarted, equal; killed again: all ended in {seconds:.1f} s")
