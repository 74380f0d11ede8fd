"""Training on two ranks: the same weights as on one, stopped or not, and nobody left behind."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.utils.events import read_scalars
from tests.utils.loops import QuietLoop, differences, relative_error, saved_run, training_loop
from utils import dist_util
from utils.errors import EXIT_CHECKPOINT, EXIT_DATA, EXIT_STOPPED, CheckpointError
from utils.logger import RunLogger

pytestmark = pytest.mark.dist

NUM_STEPS = 5
ENDLESS = 10**6
Say = Callable[[Any], None]


class _BadRankLoop(QuietLoop):
    """From step 3 on the last rank has a loss that is not finite, with or without its gradient."""

    is_gradient_bad = True

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        loss, output = super().compute_loss(micro_input, micro_label)
        if self.step < 3 or dist_util.is_main():
            return loss, output
        return (loss * float("nan") if self.is_gradient_bad else loss + float("inf")), output


class _BadLossLoop(_BadRankLoop):
    is_gradient_bad = False


class _TalkingLoop(QuietLoop):
    """Tells every finished step; rank 1 dies at step ``deadly_step``."""

    say: Say
    deadly_step = -1

    def run_step(self, batch: Any, label: Any) -> None:
        super().run_step(batch, label)
        self.say(self.step)
        if self.step == self.deadly_step and not dist_util.is_main():
            os._exit(9)


# ---- what the ranks do


def train(say: Say, folder: Path, flags: dict[str, Any]) -> int:
    """Trains and tells the indices that this rank used."""
    log_dir = str(folder.with_name(f"{folder.name}_log")) if dist_util.is_main() else None
    logger = RunLogger(log_dir, is_quiet=True)
    loop = training_loop(folder, logger=logger, **flags)
    try:
        is_done = loop.run_loop()
    finally:
        logger.close()
    say(loop.data.seen)
    say(int(loop.mp_trainer.num_skipped))
    return 0 if is_done else EXIT_STOPPED


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


def resume_everywhere(say: Say, folder: Path, flags: dict[str, Any]) -> None:
    """Trains without a stop, and once for every place where a run could have been cut."""
    training_loop(folder / "whole", max_step=NUM_STEPS, **flags).run_loop()
    for k in range(1, NUM_STEPS):
        training_loop(folder / f"cut{k}", max_step=k, **flags).run_loop()
        dist_util.barrier()
        resumed = {**flags, "resume_checkpoint": "auto", "max_step": NUM_STEPS}
        training_loop(folder / f"cut{k}", **resumed).run_loop()


def train_talking(say: Say, folder: Path, deadly_step: int) -> int:
    """Trains, telling every step."""
    _TalkingLoop.say, _TalkingLoop.deadly_step = staticmethod(say), deadly_step
    loop = training_loop(folder, loop_class=_TalkingLoop, max_step=ENDLESS, dropout=0.3)
    return 0 if loop.run_loop() else EXIT_STOPPED


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
    seen, _ = zip(*run_ranks(train, tmp_path / "two", {"batch_size": 4, **flags}), strict=True)
    one = training_loop(
        tmp_path / "one",
        batch_size=8,
        logger=RunLogger(str(tmp_path / "one_log"), is_quiet=True),
        **flags,
    )
    assert one.run_loop()
    one.logger.close()
    assert _merged(seen, 4) == one.data.seen
    found, truth = saved_run(tmp_path / "two", NUM_STEPS), saved_run(tmp_path / "one", NUM_STEPS)
    for role in ("model/", "ema_0.5/"):
        pairs = [(found[name], truth[name]) for name in truth if name.startswith(role)]
        assert relative_error(*map(list, zip(*pairs, strict=True))) < 1e-6
    assert found["state"] == truth["state"]
    logged, expected = read_scalars(tmp_path / "two_log"), read_scalars(tmp_path / "one_log")
    for name in ("loss", "grad_norm", "param_norm"):
        assert logged[name] == pytest.approx(expected[name], rel=2e-6)


def _merged(seen: Any, batch_size: int) -> list[int]:
    """The indices of all ranks in the order of the stream."""
    starts = range(0, len(seen[0]), batch_size)
    return [i for start in starts for rank in seen for i in rank[start : start + batch_size]]


@pytest.mark.parametrize("microbatch", [-1, 1, 3])
def test_gradients_are_exchanged_once_a_step_whatever_the_microbatch(microbatch: int) -> None:
    num_values = sum(p.numel() for p in training_loop().model.parameters())
    for sizes in run_ranks(train_and_count_reductions, microbatch):
        assert sizes == [[num_values]] * 3


# ---- stopping and resuming


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_resumed_run_on_two_ranks_equals_the_uninterrupted_one(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    flags = {"dtype": dtype, "batch_size": 4, "microbatch": 3, "ema_rate": "0.5", "dropout": 0.3}
    run_ranks(resume_everywhere, tmp_path, {**flags, "lr_anneal_steps": 9})
    truth = saved_run(tmp_path / "whole", NUM_STEPS)
    for k in range(1, NUM_STEPS):
        assert differences(saved_run(tmp_path / f"cut{k}", NUM_STEPS), truth) == []


def test_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """The global batch is kept: same order of items, losses as without the change."""
    first = {"max_step": 3, "resume_checkpoint": "auto", "log_interval": 1}
    last = {**first, "max_step": NUM_STEPS}
    whole = training_loop(tmp_path / "whole", batch_size=8, **last)
    assert whole.run_loop()
    one = training_loop(tmp_path / "one_two", batch_size=8, **first)
    assert one.run_loop()
    words = run_ranks(train, tmp_path / "one_two", {"batch_size": 4, **last})
    assert one.data.seen + _merged([seen for seen, _ in words], 4) == whole.data.seen
    words = run_ranks(train, tmp_path / "two_one", {"batch_size": 4, **first})
    one = training_loop(tmp_path / "two_one", batch_size=8, **last)
    assert one.run_loop()
    assert _merged([seen for seen, _ in words], 4) + one.data.seen == whole.data.seen
    truth = saved_run(tmp_path / "whole", NUM_STEPS)
    for folder in ("one_two", "two_one"):
        found = saved_run(tmp_path / folder, NUM_STEPS)
        names = [name for name in truth if name.startswith("model/")]
        assert relative_error([found[n] for n in names], [truth[n] for n in names]) < 1e-6


@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_rank_stops_all_at_the_same_step(tmp_path: Path, rank: int) -> None:
    children = start_ranks(train_talking, tmp_path / "cut", -1)
    while children[rank].next_word() < 3:
        pass
    os.kill(children[rank].process.pid or 0, signal.SIGTERM)
    last = [max([3, *child.words()]) for child in children]
    assert exit_codes(children) == [EXIT_STOPPED, EXIT_STOPPED]
    assert last[0] == last[1]
    assert [p.name for p in (tmp_path / "cut").glob("model*")] == [f"model{last[0]:06d}.pt"]


def test_ranks_that_see_different_checkpoints_do_not_start(tmp_path: Path) -> None:
    assert training_loop(tmp_path / "0", max_step=2).run_loop()
    for words in run_ranks(resume_from_folders_of_their_own, tmp_path):
        assert len(words) == 1 and "different steps [2, 0]" in words[0]


# ---- when one rank is in trouble


@pytest.mark.parametrize("loop_class", [_BadRankLoop, _BadLossLoop])
def test_bad_numbers_on_one_rank_skip_the_update_on_all_and_end_all(
    tmp_path: Path, loop_class: type[QuietLoop]
) -> None:
    flags = {"max_bad_steps": 3, "save_interval": 1, "log_interval": 1, "max_step": 20}
    children = start_ranks(train, tmp_path / "bad", {"loop_class": loop_class, **flags})
    assert exit_codes(children) == [EXIT_CHECKPOINT, EXIT_CHECKPOINT]
    run_ranks(train, tmp_path / "good", {"max_step": 3})
    truth = saved_run(tmp_path / "good", 3)
    assert differences(saved_run(tmp_path / "bad", 3), truth) == []
    last = saved_run(tmp_path / "bad", 5)
    assert not (tmp_path / "bad" / "model000006.pt").exists()
    assert differences(last, truth) == ["state"] and last["state"]["num_skipped"] == 2


def test_rank_that_dies_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    started = time.monotonic()
    children = start_ranks(train_talking, tmp_path, 3)
    codes = exit_codes(children)
    assert codes[1] == 9 and codes[0] not in (0, EXIT_STOPPED)
    assert time.monotonic() - started < 60


def test_save_that_fails_ends_all_ranks(tmp_path: Path) -> None:
    children = start_ranks(train_on_a_full_disk, tmp_path)
    codes = exit_codes(children)
    assert codes == [EXIT_DATA, 1]
    assert not list(tmp_path.glob("*.json"))
