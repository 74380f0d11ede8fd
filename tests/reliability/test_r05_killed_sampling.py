"""R5: samplers killed by SIGKILL anywhere leave, in the end, the files of one that was not."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.extent import extent
from tests.sr_var.samplers import assert_same_moments, assert_same_pictures, make_sampler, stored
from tests.tiny import TEST_NAMES, TinyData

pytestmark = pytest.mark.dist

NUM_KILLS = extent(10, 30)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_samplers_leave_what_one_run_leaves(
    tmp_path: Path,
    tiny_data: TinyData,
    uninterrupted: Path,
    figure: Callable[[str], None],
    num_processes: int,
) -> None:
    folder, rng, num_killed = tmp_path / "out", random.Random(0), 0
    context = multiprocessing.get_context("fork")

    def sample(rank: int) -> None:
        make_sampler(tiny_data, folder).run_loop(rank, num_processes)

    for _ in range(NUM_KILLS):
        processes = [context.Process(target=sample, args=(rank,)) for rank in range(num_processes)]
        for process in processes:
            process.start()
        time.sleep(rng.uniform(0.01, 0.12))
        num_killed += any(process.is_alive() for process in processes)
        for process in processes:
            process.kill()
            process.join()
    assert num_killed >= 2
    assert make_sampler(tiny_data, folder).run_loop()
    assert_same_pictures(folder, uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(folder, name), stored(uninterrupted, name))
    assert not list(folder.rglob("*.tmp"))
    figure(f"{num_processes} sampling, killed {num_killed} times at work: same files")
