"""Samplers that share a folder, and samplers that are killed: each sample once, none torn."""

from __future__ import annotations

import multiprocessing
import os
import random
from pathlib import Path

import pytest
import torch

import sr_var.sampling
from tests.processes import run_together
from tests.sr_var.samplers import (
    NUM_SAMPLES,
    NoBar,
    assert_same_moments,
    assert_same_pictures,
    make_sampler,
    pictures,
    stored,
)
from tests.tiny import TEST_NAMES, TinyData


@pytest.mark.dist
@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_that_share_a_folder_draw_every_sample_once(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, num_processes: int
) -> None:
    journal = tmp_path / "journal"
    real = sr_var.sampling.save_image

    def recorded(path: str, image: torch.Tensor) -> None:
        with open(journal, "a", encoding="utf-8") as file:
            file.write(f"{os.path.relpath(path, tmp_path)}\n")
        real(path, image)

    def work(rank: int) -> None:
        sr_var.sampling.save_image = recorded
        assert make_sampler(tiny_data, tmp_path / "out").run_loop(rank, num_processes)

    run_together(work, num_processes)
    written = [line for line in journal.read_text().splitlines() if "sample_" in line]
    assert len(written) == len(set(written)) == len(TEST_NAMES) * NUM_SAMPLES
    assert_same_pictures(tmp_path / "out", uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(tmp_path / "out", name), stored(uninterrupted, name))


def test_image_that_another_process_works_on_is_left_to_it(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    busy = make_sampler(tiny_data, tmp_path)
    job = next(busy._claim_jobs(1, NoBar()))  # type: ignore[arg-type]
    assert job.name == TEST_NAMES[1]
    assert make_sampler(tiny_data, tmp_path).run_loop()
    assert [len(pictures(tmp_path, name)) for name in TEST_NAMES] == [NUM_SAMPLES, 0, NUM_SAMPLES]
    job.lock.close()
    assert make_sampler(tiny_data, tmp_path).run_loop()
    assert len(pictures(tmp_path, TEST_NAMES[1])) == NUM_SAMPLES


@pytest.mark.dist
def test_sampler_killed_ten_times_at_random_leaves_what_one_run_leaves(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    """SIGKILL at random moments; then one run to the end."""
    folder, rng, num_killed = tmp_path / "out", random.Random(0), 0
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        process = context.Process(target=lambda: make_sampler(tiny_data, folder).run_loop())
        process.start()
        process.join(rng.uniform(0.01, 0.12))
        num_killed += process.is_alive()
        process.kill()
        process.join()
    assert num_killed >= 2
    assert make_sampler(tiny_data, folder).run_loop()
    assert_same_pictures(folder, uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(folder, name), stored(uninterrupted, name))
    assert not list(folder.rglob("*.tmp"))
