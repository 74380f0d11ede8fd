"""R17, beside ranks: a loader process that dies ends the run, and a run that ends takes all along.

Loader processes do not hear stop signals. Where an error ended the loop, they once kept its process
waiting for ever.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import Pipeline
from tests.reliability.disks import mounted
from tests.reliability.scripts import Script, differences_from_unbroken, wait_until
from tests.scripts.runs import flags_of
from tests.utils.checkpoints import auto_step
from utils.process.errors import EXIT_DATA

MAX_SECONDS = 20
ENDLESS = {"save_interval": 1, "max_step": 10**6, "num_workers": 2}


def _flags(pipeline: Pipeline, root: Path, **more: Any) -> dict[str, Any]:
    return {**flags_of(pipeline, "sr_mean_train", root), **ENDLESS, **more}


def test_killed_loader_process_ends_the_run_with_a_remedy(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    flags = _flags(pipeline, tmp_path / "cut", resume_checkpoint="auto")
    process = Script("sr_mean_train", flags, tmp_path / "said")
    wait_until(lambda: (auto_step(tmp_path / "cut" / "save")[0] or 0) >= 2)
    killed, other = process.children()
    started = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    assert process.exit_code() == EXIT_DATA
    seconds = time.monotonic() - started
    assert seconds < MAX_SECONDS
    assert not Path(f"/proc/{other}").exists()
    (line,) = [line for line in process.said().splitlines() if line.startswith("error: ")]
    # torch hears of a death by its signal, or first sees that the process or its connection is gone
    assert any(word in line for word in (f"worker (pid {killed})", f"pid(s) {killed})"))
    assert "fewer --num_workers" in line
    last = (auto_step(tmp_path / "cut" / "save")[0] or 0) + 2
    assert differences_from_unbroken("sr_mean_train", flags, last, tmp_path / "whole") == []
    figure(f"loader process killed: ended in {seconds:.1f} s, went on to equal bits")


def test_run_with_loader_processes_ends_on_a_full_disk(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        flags = _flags(pipeline, tmp_path, model_save_dir=disk)
        process = Script("sr_mean_train", flags, tmp_path / "said")
        assert process.exit_code() == EXIT_DATA
    assert "MiB free" in process.said() and "Traceback" not in process.said()
    figure("with loader processes on a full disk: ended")


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_mean_test"])
def test_run_with_loader_processes_ends_at_a_damaged_photograph(
    pipeline: Pipeline, tmp_path: Path, script: str
) -> None:
    flags = {**flags_of(pipeline, script, tmp_path), "num_workers": 2, "data_dir": tmp_path / "bad"}
    for path in pipeline.data.data_dir.rglob("*.*"):
        copy = tmp_path / "bad" / path.relative_to(pipeline.data.data_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[:300])
    process = Script(script, flags, tmp_path / "said")
    assert process.exit_code() == EXIT_DATA
    (line,) = [line for line in process.said().splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "bad") in line
