"""A stop signal to the whole process group, as torchrun and Slurm send it, loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of
from tests.tiny import words
from utils.process.errors import EXIT_STOPPED

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.dist
def test_loader_processes_live_until_the_loop_has_saved(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = {
        **flags_of(pipeline, "sr_mean_train", tmp_path),
        "max_step": 100_000,
        "save_interval": 100_000,
        "log_interval": 1,
        "num_workers": 2,
    }
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sr_mean_train.py"), *words(flags)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2 "):
            break
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    process.stdout.read()
    assert process.wait(max(1.0, deadline - time.monotonic())) == EXIT_STOPPED
    assert list((tmp_path / "save").glob("ckpt*.json"))
