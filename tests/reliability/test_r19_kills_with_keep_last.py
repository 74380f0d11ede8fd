"""R19: with ``--keep_last_k 1``, kills during saving and deleting leave one complete set always."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.reliability.extent import extent
from tests.reliability.saves import intact_steps, kill_while, save_set, unfinished_steps
from utils.loops.checkpoint import CheckpointStore

NUM_KILLS = extent(10, 50)
FILES_PER_SET = 4


def test_one_set_is_complete_whenever_a_run_that_keeps_one_is_killed(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    rng, num_cut = random.Random(0), {"saving": 0, "deleting": 0}
    store = CheckpointStore(str(tmp_path), keep_last_k=1, warn=lambda line: None)
    save_set(store, 1)
    for i in range(NUM_KILLS):
        first = intact_steps(tmp_path)[-1] + 1
        saved = kill_while(("saves", "deletes")[i % 2], tmp_path, first, 1, rng)
        steps = intact_steps(tmp_path)
        assert steps and steps[-1] >= saved
        for step in unfinished_steps(tmp_path):
            num_cut["saving" if step >= steps[-1] else "deleting"] += 1
        save_set(store, steps[-1] + 1)
        assert intact_steps(tmp_path) == [steps[-1] + 1]
        assert len(os.listdir(tmp_path)) == FILES_PER_SET, "a leftover of the kill"
    assert min(num_cut.values()) > 0, f"kills fell into {num_cut}; the test showed nothing"
    figure(
        f"one complete set after {NUM_KILLS} of {NUM_KILLS} kills "
        f"({num_cut['saving']} in a save, {num_cut['deleting']} in a deletion)"
    )
