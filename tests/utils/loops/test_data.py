"""The order of training data and the shares of test data are functions of seed and place."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.utils.training_loops import Images, RecordedData
from utils import dist_util
from utils.loops.data import EpochOrder, ShardSampler, TrainData, endless, shard_batches
from utils.process.errors import DataError

NUM_ITEMS = 11


@pytest.fixture
def pretend_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes this process look like one of several."""

    def pretend(rank: int, world_size: int) -> None:
        monkeypatch.setattr(dist_util, "get_rank", lambda: rank)
        monkeypatch.setattr(dist_util, "get_world_size", lambda: world_size)

    return pretend


def _keys(
    num_batches: int, batch_size: int, *, position: int = 0, rank: int = 0, world_size: int = 1
) -> list[list[tuple[int, int, int]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist_util, "get_rank", lambda: rank)
        patch.setattr(dist_util, "get_world_size", lambda: world_size)
        sampler = ShardSampler(EpochOrder(NUM_ITEMS, 5), batch_size, position)
    return list(itertools.islice(sampler, num_batches))


def _global_order(num_items: int, batch_size: int, world_size: int, position: int = 0) -> list[int]:
    """Indices in the order of the stream, put together from all ranks."""
    ranks = range(world_size)
    num_batches = -(-num_items // (batch_size * world_size))
    parts = [
        _keys(num_batches, batch_size, position=position, rank=rank, world_size=world_size)
        for rank in ranks
    ]
    merged = [key for batches in zip(*parts, strict=True) for batch in batches for key in batch]
    assert [place for place, _, _ in merged] == list(range(position, position + len(merged)))
    return [index for _, _, index in merged][:num_items]


def _seen(num_batches: int, **flags: Any) -> list[int]:
    data = RecordedData(4, seed=5, **flags)
    batches = data.batches(0)
    for _ in range(num_batches):
        next(batches)
    return data.seen


# ---- the order of training


def test_every_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    order = EpochOrder(NUM_ITEMS, 5)
    epochs = [order.permutation(epoch).tolist() for epoch in range(6)]
    assert all(sorted(epoch) == list(range(NUM_ITEMS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert epochs[0] != EpochOrder(NUM_ITEMS, 6).permutation(0).tolist()
    assert epochs[3] == EpochOrder(NUM_ITEMS, 5).permutation(3).tolist()


def test_stream_goes_through_each_epoch_once_across_the_borders_of_batches() -> None:
    order = EpochOrder(NUM_ITEMS, 5)
    expected = [int(i) for epoch in range(4) for i in order.permutation(epoch)]
    assert _global_order(4 * NUM_ITEMS, 4, 1) == expected


@pytest.mark.parametrize(("batch_size", "world_size"), [(3, 2), (2, 3), (1, 6)])
def test_order_does_not_depend_on_the_number_of_processes(batch_size: int, world_size: int) -> None:
    truth = _global_order(30, 6, 1)
    assert _global_order(30, batch_size, world_size) == truth


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_order_does_not_depend_on_the_number_of_workers(num_workers: int) -> None:
    expected = _global_order(20, 4, 1)
    assert _seen(5, num_workers=num_workers) == expected


def test_order_does_not_depend_on_the_generator_of_the_process() -> None:
    torch.manual_seed(1)
    first = _seen(5)
    torch.manual_seed(2)
    assert _seen(5) == first


@pytest.mark.parametrize("position", [0, 4, 7, 11, 12, 30])
@pytest.mark.parametrize("world_size", [1, 2])
def test_position_resumes_anywhere_in_an_epoch(position: int, world_size: int) -> None:
    truth = _global_order(60, 4, 1)
    assert _global_order(20, 2, world_size, position) == truth[position : position + 20]


def test_item_learns_its_place_in_the_stream_and_its_epoch() -> None:
    batches = _keys(6, 4, position=0, rank=0, world_size=1)
    order = EpochOrder(NUM_ITEMS, 5)
    for place, epoch, index in itertools.chain(*batches):
        assert (epoch, order.permutation(epoch)[place % NUM_ITEMS]) == (place // NUM_ITEMS, index)


@pytest.mark.parametrize(("batch_size", "world_size"), [(12, 1), (6, 2), (4, 3)])
def test_batch_larger_than_the_data_is_an_error_at_once(
    batch_size: int, world_size: int, pretend_rank: Callable[[int, int], None]
) -> None:
    pretend_rank(0, world_size)
    message = rf"--batch_size {batch_size} on {world_size} process\(es\) needs 12 images.* has 11"
    with pytest.raises(DataError, match=message):
        TrainData(Images(NUM_ITEMS), batch_size, lambda batch: (batch, batch))


def test_batch_as_large_as_the_data_is_an_epoch_a_step() -> None:
    assert sorted(_global_order(NUM_ITEMS, NUM_ITEMS, 1)) == list(range(NUM_ITEMS))


def test_iterable_without_end_starts_again_and_an_empty_one_is_refused() -> None:
    assert list(itertools.islice(endless([1, 2]), 5)) == [1, 2, 1, 2, 1]
    with pytest.raises(DataError, match="no batch"):
        next(endless([]))


# ---- the shares of a test


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_items", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_item_is_in_exactly_one_batch_of_one_rank(
    world_size: int, num_items: int, batch_size: int, pretend_rank: Callable[[int, int], None]
) -> None:
    found: list[int] = []
    for rank in range(world_size):
        pretend_rank(rank, world_size)
        batches = shard_batches(num_items, batch_size)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        found += itertools.chain(*batches)
    assert sorted(found) == list(range(num_items))
