"""R1: SIGKILL at a random point of a save costs no finished set, and the next save works."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.reliability.extent import extent
from tests.reliability.saves import intact_steps, kill_while, save_set, unfinished_steps
from utils.loops.checkpoint import CheckpointStore

NUM_KILLS = extent(10, 100)
FILES_PER_SET = 4


def test_kill_in_a_save_costs_no_finished_set(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    rng, num_in_save, said = random.Random(0), 0, []
    store = CheckpointStore(str(tmp_path), keep_last_k=2, warn=said.append)
    save_set(store, 1)
    for _ in range(NUM_KILLS):
        first = intact_steps(tmp_path)[-1] + 1
        saved = kill_while("saves", tmp_path, first, -1, rng)
        num_in_save += bool(unfinished_steps(tmp_path))
        steps = intact_steps(tmp_path)
        assert steps[-1] in (saved, saved + 1)
        found = store.resolve("auto")
        assert found is not None and found.step == steps[-1]
        save_set(store, steps[-1] + 1)
        assert intact_steps(tmp_path) == [steps[-1], steps[-1] + 1]
        assert len(os.listdir(tmp_path)) == 2 * FILES_PER_SET, "a leftover of the kill"
    assert num_in_save > NUM_KILLS // 4, "hardly a kill fell into a save; the test showed nothing"
    assert said == []
    figure(f"{NUM_KILLS} of {NUM_KILLS} kills left every finished set ({num_in_save} in a save)")
