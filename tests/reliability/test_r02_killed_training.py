"""R2: a training script killed by SIGKILL goes on with ``auto`` to the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.reliability.extent import extent
from tests.reliability.scripts import Script, differences_from_unbroken, wait_until
from tests.scripts.runs import TRAININGS, flags_of
from utils.process.errors import EXIT_STOPPED

NUM_KILLS = extent(4, 10)
SCRIPTS = TRAININGS[: extent(1, 3)]
ENDLESS = 10**6
SECONDS_PER_STEP = 0.2  # with its save, roughly


def _newest(save_dir: Path) -> int:
    return max((int(path.stem[4:]) for path in save_dir.glob("ckpt*.json")), default=0)


def _flags(pipeline: Pipeline, script: str, root: Path, **changes: Any) -> dict[str, Any]:
    rest = {"resume_checkpoint": "auto", "save_interval": 1, "keep_last_k": 2, "ema_rate": "0.5"}
    return {**flags_of(pipeline, script, root), **rest, "max_step": ENDLESS, **changes}


@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_training_goes_on_with_auto_to_the_same_bits(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], script: str
) -> None:
    rng, save_dir = random.Random(0), tmp_path / "cut" / "save"
    for i in range(NUM_KILLS):
        process = Script(script, _flags(pipeline, script, tmp_path / "cut"), tmp_path / f"said{i}")
        first = _newest(save_dir) + rng.randint(0, 2)
        wait_until(lambda first=first: _newest(save_dir) >= first)
        time.sleep(rng.uniform(0, SECONDS_PER_STEP))
        os.kill(process.pid, signal.SIGKILL)
        assert process.exit_code() == -signal.SIGKILL, process.said()
    last = _newest(save_dir) + 2
    flags = _flags(pipeline, script, tmp_path / "cut")
    assert differences_from_unbroken(script, flags, last, tmp_path / "whole") == []
    figure(f"{script}.py killed {NUM_KILLS} times in {last} steps, equal")


def test_training_goes_on_although_loader_processes_of_the_killed_one_hold_its_lock(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    flags = _flags(pipeline, "sr_mean_train", tmp_path, num_workers=2)
    first = Script("sr_mean_train", flags, tmp_path / "first")
    wait_until(lambda: _newest(tmp_path / "save") >= 1)
    os.kill(first.pid, signal.SIGKILL)
    assert first.exit_code() == -signal.SIGKILL
    step = _newest(tmp_path / "save")
    second = Script("sr_mean_train", flags, tmp_path / "second")
    wait_until(lambda: _newest(tmp_path / "save") > step)
    os.kill(second.pid, signal.SIGTERM)
    assert second.exit_code() == EXIT_STOPPED
    figure("with loader processes: goes on")
