"""R7: a full disk is one message with path and space; the old set is intact, nothing torn is left.

torch raises RuntimeError there, not OSError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline import Pipeline
from tests.reliability.disks import file_size_limit, grow, mounted
from tests.reliability.scripts import Script, differences_from_unbroken
from tests.scripts.runs import TRAININGS, flags_of
from tests.tiny import done, run, tree, words
from tests.utils.checkpoints import auto_step, parts, save_sets
from tests.utils.training_loops import saved_run
from utils.loops.checkpoint import CheckpointStore
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DATA, StorageError


@pytest.mark.parametrize("step", [2, 3])
def test_full_disk_leaves_the_other_sets_and_nothing_else(tmp_path: Path, step: int) -> None:
    """Also while a set is written anew, by a run that went on from an older one."""
    save_sets(tmp_path, 1, 2)
    large = {**parts(step), "model": {"weight": torch.zeros(100_000)}}
    with (
        file_size_limit(100_000),
        # the sentence is held on purpose: a full disk is met in the night
        pytest.raises(StorageError, match=r"cannot store .*model00000\d\.pt.*MiB free"),
    ):
        CheckpointStore(str(tmp_path)).save(step, large, {})
    assert len(os.listdir(tmp_path)) == 4 * (step - 1)
    assert auto_step(tmp_path) == (step - 1, "")


def _assert_one_message(said: str, *parts: str) -> None:
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize("script", TRAININGS)
def test_training_on_a_disk_that_fills_up_keeps_its_last_set(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], script: str
) -> None:
    flags = {**flags_of(pipeline, script, tmp_path), "save_interval": 1, "max_step": 20}
    with mounted(tmp_path / "disk", "size=1m") as disk:
        flags["model_save_dir"] = disk
        outcome = run(script, words(flags))
        assert outcome.code == EXIT_DATA
        _assert_one_message(outcome.err, str(disk), "MiB free", "a whole set needs 0.", "MiB")
        last, said = auto_step(disk)
        assert last and said == ""
        files = {Path(name).name for name in tree(disk)}
        steps = [f"{step:06d}" for step in range(1, last + 1)]
        kept = {f"{role}{step}.pt" for step in steps for role in ("opt", "model")}
        assert files == kept | {f"ckpt{step}.json" for step in steps} | {".writer.lock"}
        grow(disk, "size=8m")
        assert differences_from_unbroken(script, flags, last + 1, tmp_path / "whole") == []
    figure(f"{script}.py on 1 MiB: {last} of {last} sets kept")


@pytest.mark.parametrize("script", ["ddpm_sr_sample", "sr_mean_test"])
def test_results_on_a_full_disk_are_whole_or_not_there(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None], script: str
) -> None:
    flags = flags_of(pipeline, script, tmp_path)
    done(script, words(flags))
    truth = tree(tmp_path / "out")
    with mounted(tmp_path / "disk", "size=24k") as disk:
        outcome = run(script, words({**flags, "output_dir": disk}))
        assert outcome.code == EXIT_DATA
        _assert_one_message(outcome.err, str(disk), "MiB free")
        found = {path: content for path, content in tree(disk).items() if content}
        assert not [path for path in found if path.endswith(".tmp")]
        pictures = [path for path in found if path.endswith(".png")]
        assert pictures and [path for path in pictures if found[path] != truth[path]] == []
    figure(f"{script}.py: results whole")


def test_full_disk_under_the_log_ends_the_log_and_not_the_run(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """More events than any queue of a writer's thread would hold."""
    flags: dict[str, Any] = {**flags_of(pipeline, "sr_mean_train", tmp_path), "max_step": 25}
    with mounted(tmp_path / "disk", "size=24k") as disk:
        outcome = run("sr_mean_train", words({**flags, "log_dir": disk}))
        assert outcome.code == 0, outcome.err
        (line,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
        assert f"{disk} (No space left on device)" in line and "goes on" in line
    assert saved_run(tmp_path / "save", 25)
    figure("log on a full disk: run ends well")


def test_output_that_nobody_can_take_ends_the_output_and_not_the_run(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """In a job, the file that takes what it prints lies on the disk that is full."""
    flags: dict[str, Any] = {**flags_of(pipeline, "sr_mean_train", tmp_path), "max_step": 5}
    assert Script("sr_mean_train", flags, Path("/dev/full")).exit_code() == 0
    assert saved_run(tmp_path / "save", 5)
    flags["resume_checkpoint"] = "6"
    assert Script("sr_mean_train", flags, Path("/dev/full")).exit_code() == EXIT_CHECKPOINT
    figure("output on a full disk: run ends well")
