"""R6: of four trainings of one folder one runs; four samplers draw each sample once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sr_var.sampling
from tests.pipeline import Pipeline
from tests.processes import run_together
from tests.reliability.extent import extent
from tests.reliability.scripts import Script, wait_until
from tests.scripts.runs import flags_of
from tests.sr_var.samplers import (
    NUM_SAMPLES,
    assert_same_moments,
    assert_same_pictures,
    make_sampler,
    stored,
)
from tests.tiny import TEST_NAMES, TinyData, done, tree, words
from tests.utils.training_loops import training_loop
from utils.process.errors import EXIT_CHECKPOINT, EXIT_STOPPED, CheckpointError

pytestmark = pytest.mark.dist

NUM_PROCESSES = 4
NUM_ROUNDS = extent(1, 5)


def test_of_four_trainings_of_one_folder_one_runs_and_three_refuse(
    pipeline: Pipeline, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Each wants a network of another width: stored flags of a loser would lose the winner."""
    refused = [_let_one_of_four_win(pipeline, tmp_path / str(i)) for i in range(NUM_ROUNDS)]
    assert refused == [NUM_PROCESSES - 1] * NUM_ROUNDS
    asked = NUM_ROUNDS * NUM_PROCESSES
    figure(f"training: of {asked} {asked - sum(refused)} ran, {sum(refused)} refused")


def _let_one_of_four_win(pipeline: Pipeline, root: Path) -> int:
    """Number of processes that refused, the winner's lock in their message."""
    root.mkdir()
    # nothing is saved before the end: however late a process starts, it meets the lock alone
    endless = {"max_step": 10**6, "save_interval": 10**6}
    flags = {**flags_of(pipeline, "sr_mean_train", root), **endless}
    widths = [8 * (i + 1) for i in range(NUM_PROCESSES)]
    scripts = [
        Script("sr_mean_train", {**flags, "model_channels": width}, root / f"said{width}")
        for width in widths
    ]
    wait_until(lambda: sum(script.is_running() for script in scripts) == 1)
    (winner,) = [script for script in scripts if script.is_running()]
    num_refused = 0
    for script in scripts:
        if script is not winner:
            assert script.exit_code() == EXIT_CHECKPOINT
            (line,) = [line for line in script.said().splitlines() if line.startswith("error: ")]
            # the sentence is held on purpose: it is what a user of a shared folder meets
            assert f'{root / "save"} is being written by another run ({{"host": ' in line
            assert f'"pid": {winner.pid}' in line and "--model_save_dir" in line
            num_refused += 1
    os.kill(winner.pid, signal.SIGTERM)
    assert winner.exit_code() == EXIT_STOPPED, winner.said()
    last = max(int(path.stem[4:]) for path in (root / "save").glob("ckpt*.json"))
    done("sr_mean_train", words(flags, resume_checkpoint="auto", max_step=last + 1))
    return num_refused


def test_training_refuses_where_another_one_has_come_and_gone_since_it_read_the_folder(
    tmp_path: Path,
) -> None:
    """Both found it empty; the lock alone would let the second overwrite the first."""
    first, second = (training_loop(tmp_path, seed=seed) for seed in (1, 2))
    assert first.run_loop()
    left = tree(tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        second.run_loop()
    assert tree(tmp_path) == left
    assert training_loop(tmp_path, seed=1, resume_checkpoint="auto", max_step=6).run_loop()


def test_samplers_that_share_a_folder_draw_every_sample_once(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, figure: Callable[[str], None]
) -> None:
    journal = tmp_path / "journal"
    real = sr_var.sampling.save_image

    def recorded(path: str, image: torch.Tensor) -> None:
        with open(journal, "a", encoding="utf-8") as file:
            file.write(f"{os.path.relpath(path, tmp_path)}\n")
        real(path, image)

    def work(rank: int) -> None:
        sr_var.sampling.save_image = recorded
        assert make_sampler(tiny_data, tmp_path / "out").run_loop(rank, NUM_PROCESSES)

    run_together(work, NUM_PROCESSES)
    written = [line for line in journal.read_text().splitlines() if "sample_" in line]
    assert len(written) == len(set(written)) == len(TEST_NAMES) * NUM_SAMPLES
    assert_same_pictures(tmp_path / "out", uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(tmp_path / "out", name), stored(uninterrupted, name))
    figure(f"sampling: {len(written)} samples, each once")
