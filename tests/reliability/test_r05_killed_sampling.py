"""R5: samplers killed by SIGKILL anywhere leave, in the end, the files of one that was not."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.extent import extent
from tests.reliability.scripts import wait_until
from tests.sr_var.samplers import assert_same_moments, assert_same_pictures, make_sampler, stored
from tests.tiny import TEST_NAMES, TinyData

pytestmark = pytest.mark.dist

NUM_KILLS = extent(4, 10)
NUM_SAMPLES = extent(8, 20)


def _num_samples(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("sample_*.png"))


@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_samplers_leave_what_one_run_leaves(
    tmp_path: Path, tiny_data: TinyData, figure: Callable[[str], None], num_processes: int
) -> None:
    """Each is killed soon after its first file, mostly in the midst of writing a batch."""
    folder, rng, cut_at = tmp_path / "out", random.Random(0), []
    context = multiprocessing.get_context("fork")

    def sample(where: Path, rank: int = 0, world_size: int = 1) -> None:
        sampler = make_sampler(tiny_data, where, num_samples_per_image=NUM_SAMPLES)
        assert sampler.run_loop(rank, world_size)

    for _ in range(NUM_KILLS):
        ranks = [(folder, rank, num_processes) for rank in range(num_processes)]
        processes = [context.Process(target=sample, args=args) for args in ranks]
        first = _num_samples(folder) + 1
        for process in processes:
            process.start()
        wait_until(
            lambda first=first, processes=processes: (
                _num_samples(folder) >= first
                or not any(process.is_alive() for process in processes)
            )
        )
        time.sleep(rng.uniform(0, 0.01))
        for process in processes:
            process.kill()
            process.join()
        cut_at.append(_num_samples(folder))
    cut_at = [number for number in cut_at if number < NUM_SAMPLES * len(TEST_NAMES)]
    assert len(cut_at) > NUM_KILLS // 2, f"killed at {cut_at}; most were done before"
    sample(folder)
    sample(tmp_path / "whole")
    assert_same_pictures(folder, tmp_path / "whole")
    for name in TEST_NAMES:
        assert_same_moments(stored(folder, name), stored(tmp_path / "whole", name))
    assert not list(folder.rglob("*.tmp"))
    figure(f"{num_processes} sampling, killed {len(cut_at)} times at work: same files")
