"""The collective operations: alone without a group, and together on two ranks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.dist.ranks import exit_codes, run_ranks, start_ranks
from tests.utils.training_loops import ConvNet, image_pair
from utils import dist_util
from utils.loops.data import shard_batches
from utils.process.errors import EXIT_DATA, DataError
from utils.test_util import TestLoop

pytestmark = pytest.mark.dist

Say = Callable[[Any], None]


class _NamingLoop(TestLoop):
    """Tells the items that it has processed; rank 1 is asked to stop at its first one."""

    say: Say
    is_stopped = False

    def _post_process(self, batch: Any, output: Any, batch_kwargs: Any) -> None:
        self.say(batch_kwargs)
        if self.is_stopped and not dist_util.is_main():
            os.kill(os.getpid(), signal.SIGUSR1)


def collect(say: Say) -> None:
    """Tells what every operation gives on this rank."""
    rank = dist_util.get_rank()
    say((dist_util.is_distributed(), rank, dist_util.get_world_size(), dist_util.is_main()))
    value = torch.tensor([1.0, 10.0]) * (rank + 1)
    say(dist_util.mean_over_ranks(value).tolist())
    say(value.tolist())
    say([dist_util.any_rank(rank == other) for other in (0, 1, 2)])
    say([tensor.tolist() for tensor in dist_util.gather_tensors(torch.tensor([[rank, 5]]).T)])
    dist_util.barrier()
    dist_util.raise_together(None)


def broadcast(say: Say) -> None:
    """Tells what is left of tensors of several dtypes and shapes that differ between ranks."""
    rank = dist_util.get_rank()
    tensors = [
        torch.full((2, 3), float(rank)),
        torch.full((), float(rank)),
        torch.full((4,), rank, dtype=torch.float16),
        torch.full((2, 2), rank, dtype=torch.int64),
        torch.full((3, 2), float(rank)).T,
        torch.full((2,), rank, dtype=torch.bfloat16).requires_grad_(),
        torch.full((3,), bool(rank)),
        torch.zeros(0),
    ]
    dist_util.broadcast_tensors(iter(tensors))
    say([float(tensor.detach().double().sum()) for tensor in tensors])


def fail_on_one_rank(say: Say, rank: int) -> None:
    """One rank has an error to raise."""
    error = DataError("no images") if dist_util.get_rank() == rank else None
    try:
        dist_util.raise_together(error)
    except RuntimeError as raised:
        say(str(raised))
        raise


def process_shares(say: Say, num_items: int, is_stopped: bool) -> None:
    """Runs a test loop over this rank's share and tells its result last."""
    batches = shard_batches(num_items, 2)
    data = [(torch.stack([image_pair(i)[0] for i in batch]), batch) for batch in batches]
    _NamingLoop.say, _NamingLoop.is_stopped = staticmethod(say), is_stopped
    say(_NamingLoop(model=ConvNet(), data=data).run_loop())


def test_two_ranks_agree() -> None:
    for rank, words in enumerate(run_ranks(collect)):
        assert words[0] == (True, rank, 2, rank == 0)
        assert words[1] == [1.5, 15.0]
        assert words[2] == [1.0 * (rank + 1), 10.0 * (rank + 1)], "the argument stays as it is"
        assert words[3] == [True, True, False]
        assert words[4] == [[[0], [5]], [[1], [5]]]


def test_broadcast_gives_every_rank_the_tensors_of_the_first() -> None:
    for words in run_ranks(broadcast):
        assert words == [[0.0] * 8]


@pytest.mark.parametrize("rank", [0, 1])
def test_error_on_one_rank_ends_both(rank: int) -> None:
    children = start_ranks(fail_on_one_rank, rank)
    words = [child.words() for child in children]
    codes = exit_codes(children)
    assert codes[rank] == EXIT_DATA and words[rank] == []
    assert codes[1 - rank] == 1
    assert words[1 - rank] == ["another process failed; its message says why"]


@pytest.mark.parametrize(("num_items", "world_size"), [(7, 2), (1, 2), (7, 3)])
def test_each_test_item_is_processed_once_by_one_rank(num_items: int, world_size: int) -> None:
    words = run_ranks(process_shares, num_items, False, world_size=world_size)
    assert [rank[-1] for rank in words] == [True] * world_size
    assert sorted(i for rank in words for batch in rank[:-1] for i in batch) == list(
        range(num_items)
    )


def test_stopped_rank_of_a_test_keeps_nobody_waiting() -> None:
    words = run_ranks(process_shares, 12, True)
    assert [rank[-1] for rank in words] == [False, False]
    assert len(words[1]) == 2, "one batch and the result"
