"""Work in threads: in order, a bounded number at a time, and the first error ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import utils.machine.threads
from utils.machine.threads import chosen_threads, even_groups, ordered_map

TIMEOUT = 20.0


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(num_threads: int) -> None:
    first_may_end = threading.Event()

    def call(item: int) -> int:
        if num_threads > 1 and item == 0:
            assert first_may_end.wait(TIMEOUT)  # the second overtakes it
        first_may_end.set()
        return item * item

    assert list(ordered_map(call, range(20), num_threads)) == [i * i for i in range(20)]


@pytest.mark.parametrize(("num_threads", "most"), [(1, 1), (2, 4), (3, 6)])
def test_no_more_items_are_taken_than_twice_the_threads(num_threads: int, most: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(30):
            taken += 1
            yield i

    for num_seen, _ in enumerate(ordered_map(str, items(), num_threads)):
        assert taken - num_seen <= most + (num_threads > 1)
    assert taken == 30


def test_first_error_ends_it_and_gives_up_what_was_not_begun() -> None:
    done: list[int] = []

    def call(item: int) -> int:
        if item == 3:
            raise OSError("disk")
        done.append(item)
        return item

    results = ordered_map(call, range(1000), 2)
    with pytest.raises(OSError, match="disk"):
        list(results)
    assert {0, 1, 2} <= set(done) and max(done) < 10


def test_one_thread_is_the_callers_own() -> None:
    assert (
        list(ordered_map(lambda _: threading.get_ident(), range(2), 1))
        == [threading.get_ident()] * 2
    )


def test_threads_are_this_ranks_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.machine.threads, "num_cores", lambda: 12)
    for ranks, share in ((1, 12), (4, 3), (5, 2), (100, 1)):
        monkeypatch.setattr(utils.machine.threads, "num_local_processes", lambda ranks=ranks: ranks)
        assert chosen_threads(-1) == chosen_threads(0) == share
        assert chosen_threads(7) == 7


@pytest.mark.parametrize("num_items", [0, 1, 6, 7, 8, 99, 100])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_groups_hold_all_in_order_and_give_threads_the_same(
    num_items: int, num_threads: int
) -> None:
    groups = even_groups(range(num_items), 7, num_threads)
    assert [item for group in groups for item in group] == list(range(num_items))
    sizes = {len(group) for group in groups}
    assert not groups or (max(sizes) <= 7 and max(sizes) - min(sizes) <= 1)
    assert num_items < num_threads or len(groups) % num_threads == 0
