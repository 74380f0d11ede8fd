"""Training on two ranks: the same weights as on one, and nobody left behind."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.dist.trainings import Say, merged, train
from tests.utils.events import read_scalars
from tests.utils.training_loops import relative_error, saved_run, training_loop
from utils import dist_util
from utils.process.errors import EXIT_DATA, CheckpointError
from utils.logger import RunLogger

pytestmark = pytest.mark.dist

NUM_STEPS = 5


# ---- what the ranks do


def train_and_count_reductions(say: Say, microbatch: int) -> None:
    """Tells how often gradients were reduced in each step, and over how many values."""
    loop = training_loop(microbatch=microbatch)
    sizes: list[int] = []

    def counting(state, bucket):  # type: ignore[no-untyped-def]  # torch refuses other types
        sizes.append(bucket.buffer().numel())
        return allreduce_hook(state, bucket)

    loop.wrapped_model.register_comm_hook(None, counting)
    batches = loop.data.batches(0)
    for _ in range(3):
        loop.run_step(*next(batches))
        say(list(sizes))
        sizes.clear()


def train_on_a_full_disk(say: Say, folder: Path) -> None:
    """Rank 0 cannot save."""
    loop = training_loop(folder, max_step=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist_util.is_main():
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        loop.run_loop()
    finally:  # the error is to be printed, to a file perhaps
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def resume_from_folders_of_their_own(say: Say, folder: Path) -> None:
    """Each rank looks into another folder; only the first one's holds a checkpoint."""
    try:
        training_loop(folder / str(dist_util.get_rank()), resume_checkpoint="auto")
    except CheckpointError as error:
        say(str(error))


# ---- the same as one process


@pytest.mark.parametrize("microbatch", [-1, 3])
def test_update_does_not_depend_on_the_number_of_processes(tmp_path: Path, microbatch: int) -> None:
    flags = {"microbatch": microbatch, "ema_rate": "0.5", "log_interval": 1}
    words = run_ranks(train, tmp_path / "two", {"batch_size": 4, **flags})
    one = training_loop(
        tmp_path / "one",
        batch_size=8,
        logger=RunLogger(str(tmp_path / "one_log"), is_quiet=True),
        **flags,
    )
    assert one.run_loop()
    one.logger.close()
    assert merged(words, 4) == one.data.seen
    found, truth = saved_run(tmp_path / "two", NUM_STEPS), saved_run(tmp_path / "one", NUM_STEPS)
    for role in ("model/", "ema_0.5/"):
        pairs = [(found[name], truth[name]) for name in truth if name.startswith(role)]
        assert relative_error(*map(list, zip(*pairs, strict=True))) < 1e-6
    assert found["state"] == truth["state"]
    logged, expected = read_scalars(tmp_path / "two_log"), read_scalars(tmp_path / "one_log")
    for name in ("loss", "grad_norm", "param_norm"):
        assert logged[name] == pytest.approx(expected[name], rel=2e-6)


@pytest.mark.parametrize("microbatch", [-1, 1, 3])
def test_gradients_are_exchanged_once_a_step_whatever_the_microbatch(microbatch: int) -> None:
    num_values = sum(p.numel() for p in training_loop().model.parameters())
    for sizes in run_ranks(train_and_count_reductions, microbatch):
        assert sizes == [[num_values]] * 3


# ---- stopping and resuming


def test_ranks_that_see_different_checkpoints_do_not_start(tmp_path: Path) -> None:
    assert training_loop(tmp_path / "0", max_step=2).run_loop()
    for words in run_ranks(resume_from_folders_of_their_own, tmp_path):
        assert len(words) == 1 and "different steps [2, 0]" in words[0]


# ---- when one rank is in trouble


def test_save_that_fails_ends_all_ranks(tmp_path: Path) -> None:
    children = start_ranks(train_on_a_full_disk, tmp_path)
    codes = exit_codes(children)
    assert codes == [EXIT_DATA, 1]
    assert not list(tmp_path.glob("*.json"))
